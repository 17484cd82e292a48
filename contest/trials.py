"""The trials of one arm, and which of them is best; contest/tuning.py says which there are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean

from contest import rounds
from contest.attempts import Attempts
from contest.file import Arm, Setting
from contest.job import ENDED, Job, final_loss, state
from contest.rounds import Ranges
from record.contest import LedgerTrial, TrialStatus, TunedArm


@dataclass
class Trial:
    """One setting of one arm, its runs, and how they stand."""

    setting: Setting
    jobs: list[Job]
    default: bool  # the arm's own setting
    candidate: bool  # may win
    round: int = 0
    seeds: int = 0  # tuning seeds, with which the first of its runs are made; tie seeds follow
    status: TrialStatus = "missing"
    losses: list[float] = field(default_factory=list)  # of all runs, if it has finished

    @property
    def loss(self) -> float:
        """Mean loss; infinite unless it has finished."""
        return fmean(self.losses) if self.status == "finished" else math.inf

    @property
    def first_loss(self) -> float:
        """Mean loss with the tuning seeds; infinite unless all has finished."""
        return fmean(self.losses[: self.seeds]) if self.status == "finished" else math.inf

    @property
    def tied(self) -> bool:
        """Whether it is run with the tie seeds too."""
        return len(self.jobs) > self.seeds

    def look(self, past: Attempts) -> Trial:
        """Fill in how it stands; returns itself."""
        states = [state(job, past) for job in self.jobs]
        if "failed" in states:
            self.status = "failed"
        elif any(s not in ENDED for s in states):
            self.status = "missing"
        else:
            self.losses = list(map(final_loss, self.jobs))
            self.status = "finished" if all(map(math.isfinite, self.losses)) else "diverged"
        return self

    def row(self) -> LedgerTrial:
        """Its part of the ledger."""
        return LedgerTrial(
            setting=self.setting,
            runs=tuple(job.id for job in self.jobs),
            loss=_finite(self.loss),
            status=self.status,
            default=self.default,
            candidate=self.candidate,
            losses=tuple(map(_finite, self.losses)),
            round=self.round,
            tied=self.tied,
        )


@dataclass
class Tuned:
    """How the tuning of one arm stands."""

    arm: Arm
    default: Setting
    trials: list[Trial]
    budget: int  # candidates so far, when all are known
    further: list[Ranges] = field(default_factory=list)  # of a search's further trials
    settled: bool = False  # nothing more will be tried

    @property
    def candidates(self) -> list[Trial]:
        """Trials that may win."""
        return [trial for trial in self.trials if trial.candidate]

    @property
    def complete(self) -> bool:
        """Whether every candidate so far has ended, well or not."""
        ended = [trial.status != "missing" for trial in self.candidates]
        return len(ended) == self.budget and all(ended)

    @property
    def ranking(self) -> list[Trial]:
        """Finished candidates, best first; if there was a tie, those that were tied."""
        found = [trial for trial in self.candidates if trial.status == "finished"]
        tied = [trial for trial in self.candidates if trial.tied]
        return sorted((t for t in found if t.tied) if tied else found, key=lambda t: t.loss)

    @property
    def best(self) -> Setting | None:
        """The setting for the reporting runs; None if no candidate has finished."""
        return self.ranking[0].setting if self.ranking else None

    @property
    def tried(self) -> rounds.Tried:
        """The candidates and their losses."""
        return [(trial.setting, trial.loss) for trial in self.candidates]

    @property
    def ranges(self) -> Ranges:
        """Where a search has looked so far."""
        ranges = dict(self.arm.ranges)
        for later in self.further:
            ranges = {key: rounds.widened(r, later[key]) for key, r in ranges.items()}
        return ranges

    @property
    def edges(self) -> list[str]:
        """Keys whose best value lies at an edge of what was tried."""
        if self.best is None:
            return []
        if self.arm.ranges:
            return rounds.range_edges(self.tried, self.best, self.ranges, self.arm.ranges)
        return rounds.grid_edges(self.tried, self.best, self.arm.numbers)

    def row(self) -> TunedArm:
        """The arm's part of the ledger."""
        default = next(trial for trial in self.trials if trial.default)
        first, second = [*self.ranking, None, None][:2]
        return TunedArm(
            trials=tuple(trial.row() for trial in self.trials),
            best=self.best,
            best_loss=_finite(first.loss) if first else None,
            edges=tuple(self.edges),
            default=self.default,
            default_loss=_finite(default.first_loss),
            gap=_finite(default.first_loss - first.first_loss) if first else None,
            runner_up=second.setting if second else None,
            runner_up_gap=second.loss - first.loss if first and second else None,
        )


def _finite(value: float) -> float | None:
    """None for infinity, which JSON lacks."""
    return value if math.isfinite(value) else None
