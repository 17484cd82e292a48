"""How much hangs on the choice of settings? The choice made again, with the trials' noise.

Each trial's mean loss is drawn anew around what was measured, 10,000 times, and the lowest wins
again. Where another setting wins, its arm's reporting losses are shifted by the difference between
the two trials, since the other setting has no reporting runs; then all verdicts are given again.
So a share of 0 % does not say that the setting is the best one, only that noise of this size does
not choose another one of those tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from record.contest import Ledger, LedgerTrial, TunedArm
from report.statistics import RESAMPLES, two_sided_p
from report.study import Study
from report.verdict import Comparison, adjusted

SHOWN_CHOICES = 500  # combinations of settings for which verdicts are given again, commonest first


@dataclass(frozen=True)
class Replay:
    """Shares of the resamples, in 0..1."""

    std: float  # of the difference between two settings with one seed, nats
    source: str  # of `std`, in words
    other: dict[str, float]  # arm, without a length -> another setting is chosen
    verdict: dict[str, float]  # arm -> its verdict is another one


def replay(
    study: Study,
    comparisons: Mapping[str, Comparison],
    between: float | None,
    smallest: float,
) -> Replay | None:
    """The replay of a contest's tuning; None where nothing was tuned or no noise is known.

    comparisons: of final losses; {} for another metric, whose verdicts are left alone.
    between: std of differences between arms with equal seeds, nats; it stands in where the tuning
    has one seed. smallest: as in report.verdict.adjusted.
    """
    ledger = study.tuning
    if ledger is None:
        return None
    std, source = ledger.pair_std, "settings with equal tuning seeds"
    if std is None:
        std, source = between, "reporting runs of two arms with equal seeds, since one seed tuned"
    if not std:
        return None
    rng = np.random.default_rng(0)
    arms = {arm: tuned for arm, tuned in ledger.arms.items() if tuned.best}
    gaps = {arm: _gaps(ledger, tuned) for arm, tuned in arms.items()}
    drawn = {arm: _draw(ledger, tuned, gaps[arm], std, rng) for arm, tuned in arms.items()}
    other = {arm: float(np.mean(choice != 0)) for arm, choice in drawn.items()}
    return Replay(std, source, other, _verdicts(study, comparisons, gaps, drawn, smallest))


def _finished(tuned: TunedArm) -> list[LedgerTrial]:
    """The candidates that have a loss, the chosen one first."""
    found = [t for t in tuned.trials if t.candidate and t.loss is not None]
    return sorted(found, key=lambda trial: trial.setting != tuned.best)


def _gaps(ledger: Ledger, tuned: TunedArm) -> NDArray[np.float64]:
    """Losses above the chosen setting's, by the seeds that both were run with."""
    trials = _finished(tuned)
    first = len(ledger.seeds)

    def gap(trial: LedgerTrial) -> float:
        assert trial.loss is not None
        assert trials[0].loss is not None
        if trial.tied == trials[0].tied:
            return trial.loss - trials[0].loss
        mine, theirs = (np.array(t.losses[:first], dtype=np.float64) for t in (trial, trials[0]))
        return float(np.mean(mine - theirs))

    return np.array([gap(trial) for trial in trials])


def _draw(
    ledger: Ledger, tuned: TunedArm, gaps: NDArray[np.float64], std: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Which trial wins in each resample; 0 is the one that was chosen."""
    seeds = np.array([len(trial.runs) or len(ledger.seeds) for trial in _finished(tuned)])
    own = std / np.sqrt(2 * seeds)  # of each mean, without what a seed does to all settings
    return np.argmin(rng.normal(gaps, own, size=(RESAMPLES, len(gaps))), axis=1)


def _verdicts(
    study: Study,
    comparisons: Mapping[str, Comparison],
    gaps: Mapping[str, NDArray[np.float64]],
    drawn: Mapping[str, NDArray[np.int64]],
    smallest: float,
) -> dict[str, float]:
    """How often each tested arm has another verdict."""
    tested = {arm: c for arm, c in comparisons.items() if c.tested}
    if not tested or not drawn:
        return {}
    arms = list(drawn)
    choices = Counter(map(tuple, np.stack([drawn[arm] for arm in arms], axis=1).tolist()))
    changed, seen = dict.fromkeys(tested, 0), 0
    for choice, count in choices.most_common(SHOWN_CHOICES):
        shift = {arm: gaps[arm][at] for arm, at in zip(arms, choice, strict=True)}
        labels = {*tested, *(c.baseline for c in tested.values())}
        by = {label: shift.get(study.without_length(label), 0.0) for label in labels}
        moved = {arm: _shifted(c, by[arm] - by[c.baseline]) for arm, c in tested.items()}
        again = adjusted(moved, smallest)
        for arm, c in tested.items():
            changed[arm] += count * (again[arm].call != c.call)
        seen += count
    return {arm: count / seen for arm, count in changed.items()}


def _shifted(c: Comparison, by: float) -> Comparison:
    """A comparison whose arm and baseline have other settings; their spread stays."""
    if not by or not c.error or c.difference is None or c.df is None:
        return c
    difference = c.difference + by
    return replace(c, difference=difference, p=two_sided_p(difference, c.error, c.df, c.own))
