"""From a contest to its runs: a function of the contest file and of what is on disk.

Called again after a run has ended it gives the next ones: reporting runs follow when the tuning of
their arm is complete.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from configs import Batch, Config, ConfigError
from contest import branches, tuning
from contest.file import Arm, Contest
from contest.job import Job, State, attempts, build, schedule_factors, state
from record.contest import PendingRun, PlanFile, PlannedRun
from storage import write_atomically

__all__ = ["Job", "Plan", "State", "check", "make", "state"]


@dataclass
class Plan:
    """All runs known now, in the order in which they should begin."""

    contest: Contest
    home: Path
    arms: list[str]
    baseline: str
    jobs: list[Job] = field(default_factory=list)
    pending: list[PendingRun] = field(default_factory=list)
    tuned: dict[str, tuning.Tuned] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def write(self) -> None:
        """contest.toml, plan.json and tuning.json in the contest's folder."""
        self.home.mkdir(parents=True, exist_ok=True)
        write_atomically(self.home / "contest.toml", self.contest.text)
        self.file().write(self.home)
        if self.tuned:
            tuning.ledger(self.contest, self.tuned).write(self.home)

    def file(self) -> PlanFile:
        """plan.json: arms without their lengths, which the report tells apart by itself."""
        return PlanFile(
            contest=self.contest.name,
            baseline=self.contest.table.baseline,
            target=self.contest.table.target,
            arms=tuple(arm.name for arm in self.contest.arms),
            runs=tuple(_row(job) for job in self.jobs),
            pending=tuple(self.pending),
            problems=tuple(self.problems),
        )


def make(contest: Contest, out: Path, ask: int = 0) -> Plan:
    """The plan as of now. `ask`: how many trials of a search may be open at once in each arm.

    Raises ConfigError, one line.
    """
    home = out.absolute() / contest.name
    past = attempts(home)
    plan = Plan(contest, home, *names(contest))
    if contest.tuned:
        plan.tuned = tuning.tune(contest, home, past, ask)
        for tuned in plan.tuned.values():
            plan.jobs += [job for trial in tuned.trials for job in trial.jobs]
    for number in range(len(contest.table.seeds)):  # all arms with one seed, then with the next
        ready: list[branches.Start] = []
        for arm in contest.arms:
            report(plan, arm, arm.seeds[number], ready)
        plan.jobs += branches.trunks(contest, home, ready) if contest.table.branches else []
        plan.jobs += [start.job for start in ready]
    plan.jobs = unique(plan)
    return plan


def written(contest: Contest, out: Path) -> Plan | None:
    """The plan as it was last written, without working it out; None for another contest file."""
    home = out.absolute() / contest.name
    file, copy = PlanFile.read(home), home / "contest.toml"
    if file is None or not copy.exists() or copy.read_text(encoding="utf-8") != contest.text:
        return None
    plan = Plan(contest, home, *names(contest))
    plan.jobs = [_job(run, home) for run in file.runs]
    plan.pending, plan.problems = list(file.pending), list(file.problems)
    return plan


def _row(job: Job) -> PlannedRun:
    """A job as plan.json has it."""
    return PlannedRun(
        id=job.id,
        arm=job.contestant,
        role=job.role,
        seed=job.seed,
        data_seed=job.data_seed,
        trial=job.trial,
        length=job.length,
        after=job.after,
        directory=str(job.directory.relative_to(job.home)),
        arguments=tuple(job.arguments),
    )


def _job(run: PlannedRun, home: Path) -> Job:
    """Reverse of `_row`."""
    several_lengths = run.role == "report" and run.length
    return Job(
        id=run.id,
        arm=f"{run.arm}@{run.length}" if several_lengths else run.arm,
        role=run.role,
        seed=run.seed,
        data_seed=run.data_seed,
        trial=run.trial,
        length=run.length,
        after=run.after,
        directory=home / run.directory,
        arguments=list(run.arguments),
        home=home,
    )


def names(contest: Contest) -> tuple[list[str], str]:
    """Arms as they are reported, and the baseline among them: with lengths, `arm@length`."""
    arms, baseline = [arm.name for arm in contest.arms], contest.table.baseline
    if not contest.table.branches:
        return arms, baseline
    lengths = contest.table.branches.lengths
    return [f"{arm}@{n}" for n in lengths for arm in arms], f"{baseline}@{max(lengths)}"


def report(plan: Plan, arm: Arm, seed: int, ready: list[branches.Start]) -> None:
    """Add the reporting runs of one arm and seed, or the reason why there are none yet."""
    tuned, contest = plan.tuned.get(arm.name), plan.contest
    lengths = contest.table.branches.lengths if contest.table.branches else [None]
    labels = [f"{arm.name}@{length}" if length else arm.name for length in lengths]
    if tuned and not tuned.complete:
        plan.pending += [PendingRun(arm=label, seed=seed) for label in labels]
    elif tuned and tuned.best is None:
        said = f"arm '{arm.name}': all {plan.contest.trials} trials failed or diverged; it has no "
        said += "setting to report with"
        plan.problems += [said] if said not in plan.problems else []
    else:
        trial = tuned.best if tuned else None
        for label, length in zip(labels, lengths, strict=True):
            job = build(contest, plan.home, arm, seed, "report", trial, label=label, length=length)
            ready.append(branches.Start(arm, job))


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
        if contest.tuned:
            tuning.own_setting(contest, arm)  # are the tuned keys its own?
        for setting in arm.settings() if arm.grid else []:
            build(contest, home, arm, arm.seeds[0], "report", setting)
        lengths = contest.table.branches.lengths if contest.table.branches else [None]
        for seed, length in itertools.product(arm.seeds, lengths):
            job = build(contest, home, arm, seed, "report", length=length)
            if (owner := owners.setdefault(job.id, arm.name)) != arm.name:
                raise ConfigError(f"arms '{owner}' and '{arm.name}' are the same run {job.id}; "
                                  "change one, remove it, or, to compare an arm with itself, give "
                                  "one of them `seeds` of its own")  # fmt: skip
            if seed == arm.seeds[0]:
                check_run(arm, job.config, nproc)
    make(contest, home.parent)  # branches that do not fit


def check_run(arm: Arm, config: Config, nproc: int) -> None:
    """The parts of a run's configuration that fit each other or do not: ConfigError."""
    try:
        schedule_factors(config)
        Batch.divide(config, nproc)
    except ConfigError as error:
        raise ConfigError(f"arm '{arm.name}': {error}") from None
