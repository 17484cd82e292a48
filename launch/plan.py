"""From a contest to its runs: a function of the contest file and of what is on disk.

Called again after a run has ended it gives the next ones: reporting runs follow when the tuning of
their arm is complete.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optim
from configs import Batch, ConfigError
from launch import tuning
from launch.contest import Arm, Contest
from launch.job import Job, State, attempts, build, state
from report.runlog import write_atomically

__all__ = ["Job", "Plan", "State", "check", "make", "state"]


@dataclass
class Plan:
    """All runs known now, in the order in which they should begin."""

    contest: Contest
    home: Path
    arms: list[str]
    baseline: str
    jobs: list[Job] = field(default_factory=list)
    pending: list[dict[str, Any]] = field(default_factory=list)  # wait for the tuning
    tuned: dict[str, tuning.Tuned] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def write(self) -> None:
        """contest.toml, plan.json and tuning.json in the contest's folder."""
        self.home.mkdir(parents=True, exist_ok=True)
        write_atomically(self.home / "contest.toml", self.contest.text)
        write_atomically(self.home / "plan.json", json.dumps(self.table(), indent=1) + "\n")
        if self.tuned:
            text = json.dumps(tuning.ledger(self.contest, self.tuned), indent=1)
            write_atomically(self.home / "tuning.json", text + "\n")

    def table(self) -> dict[str, Any]:
        """plan.json."""
        return {
            "contest": self.contest.name,
            "baseline": self.baseline,
            "target": self.contest.table.target,
            "arms": self.arms,
            "runs": [
                {
                    "id": job.id,
                    "arm": job.arm,
                    "role": job.role,
                    "seed": job.seed,
                    "data_seed": job.data_seed,
                    "trial": job.trial,
                    "length": job.length,
                    "after": job.after,
                    "directory": str(job.directory.relative_to(self.home)),
                    "arguments": job.arguments,
                }
                for job in self.jobs
            ],
            "pending": self.pending,
            "problems": self.problems,
        }


def make(contest: Contest, out: Path, ask: int = 0) -> Plan:
    """The plan as of now. `ask`: how many trials of a search may be open at once in each arm.

    Raises ConfigError, one line.
    """
    home = out.absolute() / contest.name
    past = attempts(home)
    arms, baseline = [arm.name for arm in contest.arms], contest.table.baseline
    plan = Plan(contest, home, arms, baseline)
    if contest.tuned:
        plan.tuned = tuning.tune(contest, home, past, ask)
        for tuned in plan.tuned.values():
            plan.jobs += [job for trial in tuned.trials for job in trial.jobs]
    rows = [(arm, number) for number in range(len(contest.table.seeds)) for arm in contest.arms]
    for arm, number in rows:  # all arms with one seed, then with the next: comparable early
        report(plan, arm, arm.seeds[number])
    plan.jobs = unique(plan)
    return plan


def report(plan: Plan, arm: Arm, seed: int) -> None:
    """Add the reporting runs of one arm and seed, or the reason why there are none yet."""
    tuned = plan.tuned.get(arm.name)
    if tuned and not tuned.complete:
        plan.pending.append({"arm": arm.name, "seed": seed})
    elif tuned and tuned.best is None:
        said = f"arm '{arm.name}': all {plan.contest.trials} trials failed or diverged; it has no "
        said += "setting to report with"
        plan.problems += [said] if said not in plan.problems else []
    else:
        trial = tuned.best if tuned else None
        plan.jobs.append(build(plan.contest, plan.home, arm, seed, "report", trial))


def unique(plan: Plan) -> list[Job]:
    """Each run once; two arms that share a tuning run share its result."""
    found: dict[Path, Job] = {}
    for job in plan.jobs:
        first = found.setdefault(job.directory, job)
        if first.arm != job.arm and job.role == "report":
            plan.problems.append(f"arms '{first.arm}' and '{job.arm}' came out of tuning as the "
                                 f"same run {job.id}; it is the first one's")  # fmt: skip
    return list(found.values())


def check(contest: Contest, home: Path, nproc: int = 1) -> None:
    """Everything that is wrong with the runs and can be known before one starts: ConfigError."""
    owners: dict[str, str] = {}
    for arm in contest.arms:
        trials = [tuning.own_setting(contest, arm)] if contest.tuned else []
        for setting in [None, *arm.settings()] if contest.tuned else [None, *trials]:
            build(contest, home, arm, arm.seeds[0], "report", setting)
        for seed in arm.seeds:
            job = build(contest, home, arm, seed, "report")
            if (owner := owners.setdefault(job.id, arm.name)) != arm.name:
                raise ConfigError(f"arms '{owner}' and '{arm.name}' are the same run {job.id}; "
                                  "change one, remove it, or, to compare an arm with itself, give "
                                  "one of them `seeds` of its own")  # fmt: skip
        config = job.config
        try:
            schedule = config.schedule
            optim.build_schedule(
                schedule.name, config.train.total_steps, **schedule.hyperparameters
            )
            Batch.divide(config, nproc)
        except ConfigError as error:
            raise ConfigError(f"arm '{arm.name}': {error}") from None
