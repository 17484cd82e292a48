"""Tuning: the same number of trials for every arm, all of them in a ledger (tuning.json).

A trial is one setting, run with every tuning seed. Its loss is the mean of their final validation
losses, infinite if one of them diverged. No trial is ended early: the loss at 30 % of a run says
little about its end. If a grid does not hold the arm's own, untuned setting, that setting is run
beside the grid, so that the ledger shows what tuning has gained; it is not a candidate then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from configs import ConfigError
from contest.attempts import Attempts
from contest.file import Arm, Contest, Setting
from contest.job import ENDED, Job, build, final_loss, resolved, state
from contest.search import Study
from record.contest import Ledger, LedgerTrial, TrialStatus, TunedArm
from record.runlog import flat

EDGE = 0.05  # of a searched range, at either end


@dataclass
class Trial:
    """One setting of one arm, and its runs."""

    setting: Setting
    jobs: list[Job]
    default: bool  # the arm's own setting
    candidate: bool  # may win

    def status(self, past: Attempts) -> tuple[TrialStatus, float]:
        """How it stands, and its mean loss, infinite unless it has finished."""
        states = [state(job, past) for job in self.jobs]
        if "failed" in states:
            return "failed", math.inf
        if any(s not in ENDED for s in states):
            return "missing", math.inf
        loss = fmean(map(final_loss, self.jobs))
        return ("finished", loss) if math.isfinite(loss) else ("diverged", math.inf)


@dataclass
class Tuned:
    """How the tuning of one arm stands."""

    trials: list[Trial]
    results: list[tuple[TrialStatus, float]]
    default: Setting
    budget: int  # candidates, when all are known
    best: Setting | None = None
    best_loss: float = math.inf
    edges: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every candidate has ended, well or not."""
        pairs = zip(self.trials, self.results, strict=True)
        ended = [status != "missing" for trial, (status, _) in pairs if trial.candidate]
        return len(ended) == self.budget and all(ended)

    def row(self) -> TunedArm:
        """The arm's part of the ledger."""
        pairs = list(zip(self.trials, self.results, strict=True))
        default_loss = next((loss for trial, (_, loss) in pairs if trial.default), math.inf)
        gap = default_loss - self.best_loss if self.best is not None else math.inf
        trials = [
            LedgerTrial(
                setting=trial.setting,
                runs=tuple(job.id for job in trial.jobs),
                loss=_finite(loss),
                status=status,
                default=trial.default,
                candidate=trial.candidate,
            )
            for trial, (status, loss) in pairs
        ]
        return TunedArm(
            trials=tuple(trials),
            best=self.best,
            best_loss=_finite(self.best_loss),
            edges=tuple(self.edges),
            default=self.default,
            default_loss=_finite(default_loss),
            gap=_finite(gap),
        )


def tune(contest: Contest, home: Path, past: Attempts, ask: int) -> dict[str, Tuned]:
    """How the tuning of each arm stands.

    ask: with a search, new trials are begun while an arm has fewer than this many open.

    Raises:
        ConfigError: an arm does not have a key that is tuned.
    """
    return {arm.name: _tune_arm(contest, home, arm, past, ask) for arm in contest.arms}


def _tune_arm(contest: Contest, home: Path, arm: Arm, past: Attempts, ask: int) -> Tuned:
    def trial(setting: Setting, default: bool, candidate: bool) -> Trial:
        seeds = contest.table.tuning_seeds
        jobs = [build(contest, home, arm, (s, s), "tuning", setting) for s in seeds]
        return Trial(setting, jobs, default, candidate)

    default = own_setting(contest, arm)
    if search := contest.table.search:
        study = Study(search, arm, home)
        known = study.settings(lambda setting: trial(setting, False, True).status(past), ask)
    else:
        known = arm.settings()
    trials = [trial(setting, setting == default, True) for setting in known]
    if not any(t.default for t in trials):
        trials.append(trial(default, True, False))
    tuned = Tuned(trials, [t.status(past) for t in trials], default, contest.trials)
    _choose(tuned, arm)
    return tuned


def own_setting(contest: Contest, arm: Arm) -> Setting:
    """The values that the tuned keys have without tuning.

    Raises:
        ConfigError: the arm does not have such a key.
    """
    try:
        seed = contest.table.tuning_seeds[0]
        config = resolved(tuple(contest.arguments(arm, (seed, seed))))
    except ConfigError as error:
        raise ConfigError(f"arm '{arm.name}': {error}") from None
    values, tuned = flat(config.table()), arm.grid or arm.ranges
    for key in tuned:
        if key not in values:
            problem = f"arm '{arm.name}': tuned key '{key}' is none of its keys"
            raise ConfigError(f"{problem}; give the arm a tune table of its own")
    return {key: values[key] for key in tuned}


def _choose(tuned: Tuned, arm: Arm) -> None:
    """Fill in the best candidate, and whether it lies at the edge of what was tried."""
    pairs = zip(tuned.trials, tuned.results, strict=True)
    candidates = [(loss, trial) for trial, (_, loss) in pairs if trial.candidate]
    loss, trial = min(candidates, key=lambda pair: pair[0], default=(math.inf, None))
    if trial is None or not math.isfinite(loss):
        return
    tuned.best, tuned.best_loss = trial.setting, loss
    tuned.edges = [key for key, value in trial.setting.items() if at_edge(arm, key, value)]


def at_edge(arm: Arm, key: str, value: Any) -> bool:
    """Whether a better value may lie outside: an end of the grid, or 5 % of the range from one."""
    if key in arm.ranges:
        r = arm.ranges[key]
        low, high, x = map(math.log, (r.low, r.high, value)) if r.log else (r.low, r.high, value)
        return not low + EDGE * (high - low) < x < high - EDGE * (high - low)
    values = arm.grid[key]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and len(values) > 1 and value in (min(values), max(values))


def _finite(value: float) -> float | None:
    """None for infinity, which JSON lacks."""
    return value if math.isfinite(value) else None


def ledger(contest: Contest, tuned: Mapping[str, Tuned]) -> Ledger:
    """tuning.json."""
    search = contest.table.search
    return Ledger(
        contest=contest.name,
        method="optuna" if search else "grid",
        sampler=search.sampler if search else None,
        trials_per_arm=contest.trials,
        seeds=contest.table.tuning_seeds,
        arms={name: arm.row() for name, arm in tuned.items()},
    )
