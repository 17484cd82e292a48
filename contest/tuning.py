"""Tuning: the same number of trials for every arm, all of them in a ledger (tuning.json).

A trial is one setting, run with every tuning seed; its loss is the mean of their final validation
losses, infinite where one diverged. No trial is ended early: the loss at 30 % of a run says little
about the end. The arm's own untuned setting is run beside a grid that does not hold it, so that
the ledger tells what tuning gained; it is a candidate only where it is in the grid.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from configs import ConfigError
from contest.file import Arm, Contest, Search, Setting
from contest.job import ENDED, Job, build, final_loss, resolved, state
from record.contest import Ledger, LedgerTrial, TrialStatus, TunedArm

EDGE = 0.05  # of a searched range, at either end


@dataclass
class Trial:
    """One setting of one arm, and its runs."""

    setting: Setting
    jobs: list[Job]
    default: bool  # the arm's own setting
    candidate: bool  # may win

    def status(self, past: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[TrialStatus, float]:
        """(finished | diverged | failed | missing, mean loss or infinity)."""
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
                loss=finite(loss),
                status=status,
                default=trial.default,
                candidate=trial.candidate,
            )
            for trial, (status, loss) in pairs
        ]
        return TunedArm(
            trials=tuple(trials),
            best=self.best,
            best_loss=finite(self.best_loss),
            edges=tuple(self.edges),
            default=self.default,
            default_loss=finite(default_loss),
            gap=finite(gap),
        )


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def tune(
    contest: Contest, home: Path, past: Mapping[str, Sequence[Mapping[str, Any]]], ask: int
) -> dict[str, Tuned]:
    """How each arm's tuning stands; with a search, new trials are begun while fewer than `ask`
    are open in an arm.
    """
    return {arm.name: _arm(contest, home, arm, past, ask) for arm in contest.arms}


def _arm(
    contest: Contest,
    home: Path,
    arm: Arm,
    past: Mapping[str, Sequence[Mapping[str, Any]]],
    ask: int,
) -> Tuned:
    def trial(setting: Setting, default: bool, candidate: bool) -> Trial:
        seeds = contest.table.tuning_seeds
        jobs = [build(contest, home, arm, seed, "tuning", setting) for seed in seeds]
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
    choose(tuned, arm)
    return tuned


class Study:
    """One arm's search: an optuna study in the contest's journal, optuna.log.

    The journal is the memory: a trial that was begun is there with its setting, whoever dies.
    """

    def __init__(self, search: Search, arm: Arm, home: Path) -> None:
        self.search, self.arm, self.journal = search, arm, home / "optuna.log"

    def settings(
        self, status: Callable[[Setting], tuple[TrialStatus, float]], ask: int
    ) -> list[Setting]:
        """Settings of all trials begun; tells optuna of those that ended, asks for new ones.

        ask: at most so many are open at once; 0 touches nothing.
        """
        if not ask and not self.journal.exists():
            return []
        study = self.open(0)
        open_trials = 0
        for old in study.trials:
            said, loss = status(dict(old.params))
            open_trials += said == "missing"
            if said != "missing" and not old.state.is_finished() and ask:
                if said == "failed":  # it has had its turn, and tells nothing about the setting
                    study.tell(old.number, state=optuna().trial.TrialState.FAIL)
                else:
                    study.tell(old.number, loss)
        begun = len(study.trials)
        for number in range(begun, min(self.search.trials, begun + max(0, ask - open_trials))):
            self.open(number).ask(self.distributions())
        return [dict(trial.params) for trial in study.get_trials()]

    def distributions(self) -> dict[str, Any]:
        """The ranges as optuna names them."""
        kinds = optuna().distributions
        return {
            key: kinds.IntDistribution(r.low, r.high, r.log)
            if isinstance(r.low, int) and isinstance(r.high, int)
            else kinds.FloatDistribution(r.low, r.high, r.log)
            for key, r in self.arm.ranges.items()
        }

    def open(self, number: int) -> Any:
        """The study, with a sampler for its trial `number`.

        A sampler's random state is not in the journal, so each trial has a seed of its own, or a
        second planner would propose the first one's settings again. (qmc keeps its place itself.)
        """
        module, search = optuna(), self.search
        seed = search.seed + number
        samplers = {
            "tpe": lambda: module.samplers.TPESampler(
                n_startup_trials=max(2, search.trials // 3), constant_liar=True, seed=seed
            ),
            "random": lambda: module.samplers.RandomSampler(seed),
            "qmc": lambda: module.samplers.QMCSampler(seed=search.seed, scramble=True),
            "cmaes": lambda: module.samplers.CmaEsSampler(seed=seed),
        }
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        journal = module.storages.journal
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental, says optuna of some
            return module.create_study(
                storage=module.storages.JournalStorage(
                    journal.JournalFileBackend(str(self.journal))
                ),
                study_name=self.arm.name,
                sampler=samplers[search.sampler](),
                load_if_exists=True,
            )


def optuna() -> Any:
    """The package, quiet; imported only where a contest searches."""
    import optuna as module

    module.logging.set_verbosity(module.logging.ERROR)
    return module


def own_setting(contest: Contest, arm: Arm) -> Setting:
    """The values that the tuned keys have without tuning. Raises ConfigError for unknown keys."""
    try:
        table = resolved(tuple(contest.arguments(arm, contest.table.tuning_seeds[0]))).table()
    except ConfigError as error:
        raise ConfigError(f"arm '{arm.name}': {error}") from None
    setting: Setting = {}
    for key in arm.grid or arm.ranges:
        value: Any = table
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise ConfigError(f"arm '{arm.name}': tuned key '{key}' is none of its keys; give "
                                  "the arm a tune table of its own")  # fmt: skip
            value = value[part]
        setting[key] = value
    return setting


def choose(tuned: Tuned, arm: Arm) -> None:
    """Fill in the best candidate and whether it lies at the edge of what was tried."""
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
