"""The verdict on each arm: better, worse, no evidence, or why there is none.

An arm is compared with the baseline by a paired t-test where both have the same seeds, else by
Welch's. Its p value is adjusted by Holm over all arms tested; below ALPHA the sign of the
difference decides. docs/report.md says what each number means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from report.comparable import cautions, refusal
from report.run import Pair
from report.statistics import ALPHA, bca, holm, paired_t, welch_t
from report.study import Study

Values = dict[Pair, float]  # the metric of each run that has ended, by its seeds
Call = Literal["better", "worse", "no evidence", "no verdict", "refused", "diverged"]

METRICS = (  # lower is better in all of them
    "final_val_loss",
    "best_val_loss",
    "final_train_loss",
    "avg_loss",
    "loss_noise",
    "spike_score",
    "train_seconds",
    "step_ms_median",
    "optimizer_ms_median",
    "peak_memory_gib",
)


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline. difference = arm - baseline: negative is better."""

    baseline: str
    call: Call
    why: str = ""  # nothing was tested
    method: Literal["paired t", "Welch"] | None = None
    differences: Values = field(default_factory=dict)  # of the pairs
    difference: float | None = None
    low: float | None = None  # 95 % t interval
    high: float | None = None
    bca_low: float | None = None  # 95 % BCa bootstrap
    bca_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The call, and the reason where there is one."""
        return f"{self.call}: {self.why}" if self.why else self.call


def values_of(study: Study, arm: str, metric: str, censor_diverged: bool) -> Values:
    """The metric of each reporting run that has ended.

    metric: one of METRICS, in its own unit. A diverged run counts as +inf, or is left out if
    `censor_diverged`.
    """
    found: Values = {}
    for run in study.of(arm):
        value = run.summary.get(metric)
        if run.diverged:
            if not censor_diverged:
                found[run.pair] = math.inf
        elif run.status == "finished" and value is not None and math.isfinite(value):
            found[run.pair] = float(value)
    return found


def compare(study: Study, values: Mapping[str, Values]) -> dict[str, Comparison]:
    """Every arm but the baseline against its baseline, p values adjusted over all of them.

    values: `values_of` every arm of the study.
    """
    found = {arm: _against_baseline(study, arm, values) for arm in study.arms}
    return adjusted({arm: comparison for arm, comparison in found.items() if comparison})


def _against_baseline(study: Study, arm: str, values: Mapping[str, Values]) -> Comparison | None:
    """One arm, its p value not yet adjusted; None for the baseline itself."""
    base = study.baseline_of(arm)
    if base == arm or study.baseline is None:
        return None
    if base is None:
        why = f"{study.baseline} was not trained for the same number of updates"
        return Comparison(study.baseline, "refused", why)
    notes = cautions(study, arm, base)
    if reason := refusal(study, arm, base):
        return Comparison(base, "refused", reason, notes=notes)
    mine, theirs = values[arm], values[base]
    if untestable := _untestable(mine, theirs, base):
        call, why = untestable
        gaps = {pair: gap for pair, gap in _differences(mine, theirs).items() if math.isfinite(gap)}
        return Comparison(base, call, why, differences=gaps, notes=notes)
    return tested(base, mine, theirs, notes)


def _untestable(mine: Values, theirs: Values, base: str) -> tuple[Call, str] | None:
    """Why two arms cannot be tested, as a call and a reason; None if they can."""
    if lost := sum(map(math.isinf, theirs.values())):
        return "no verdict", f"{lost} of {len(theirs)} runs of the baseline {base} diverged"
    if lost := sum(map(math.isinf, mine.values())):
        return "diverged", f"{lost} of {len(mine)} runs, so its mean is infinite"
    if not mine or not theirs:
        return "no verdict", f"no finished run of {base if mine else 'this arm'}"
    if len(mine) == 1 or len(theirs) == 1:
        return "no verdict", "with one seed, no difference can be told from noise"
    return None


def _differences(mine: Values, theirs: Values) -> Values:
    """Arm minus baseline for each pair of equal seeds; NaN if both are infinite."""
    return {pair: mine[pair] - theirs[pair] for pair in sorted(mine.keys() & theirs.keys())}


def tested(base: str, mine: Values, theirs: Values, notes: tuple[str, ...]) -> Comparison:
    """Paired t if every run has its pair, else Welch's t; the BCa bootstrap beside it.

    mine, theirs: at least two finite values each. The call is still open: see `adjusted`.
    """
    gaps = _differences(mine, theirs)
    paired = mine.keys() == theirs.keys()
    sides = [list(gaps.values())] if paired else [list(mine.values()), list(theirs.values())]
    test = paired_t(*sides) if paired else welch_t(*sides)
    assert test is not None
    bootstrap = bca(sides)
    if not paired:
        note = f"{len(mine)} and {len(theirs)} runs, {len(gaps)} pairs: compared unpaired"
        notes = (*notes, note)
    elif not any(gaps.values()):
        notes = (*notes, "all pairs are equal to the last bit: the same computation")
    return Comparison(
        baseline=base,
        call="no evidence",
        method="paired t" if paired else "Welch",
        differences=gaps,
        difference=test.difference,
        low=test.low,
        high=test.high,
        bca_low=bootstrap and bootstrap.low,
        bca_high=bootstrap and bootstrap.high,
        p=test.p,
        notes=notes,
    )


def adjusted(comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Holm over the arms that were tested, and the call that follows from each p value."""
    tests = {arm: c.p for arm, c in comparisons.items() if c.p is not None}
    found = dict(comparisons)
    for arm, p in zip(tests, holm(list(tests.values())), strict=True):
        call = _call(p, found[arm].difference)
        found[arm] = replace(found[arm], p_holm=p, call=call)
    return found


def _call(p: float, difference: float | None) -> Call:
    """better or worse below ALPHA, by the sign of the difference; else no evidence."""
    if p >= ALPHA or not difference:
        return "no evidence"
    return "better" if difference < 0 else "worse"
