"""Which runs a contest has: a function of the contest file and of what is on disk.

The plan grows as runs end: an arm's reporting runs join it when the arm's tuning is complete.
"""

from __future__ import annotations

import functools
import itertools
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from configs import Config, ConfigError
from configs.loading import flat
from contest import branches, tuning
from contest.attempts import attempts
from contest.file import Arm, Contest, Seeds
from contest.job import Job, build
from record import history
from record.contest import PendingRun, PlanFile, PlannedRun
from storage import write_atomically


@dataclass
class Plan:
    """All runs known now, in the order in which they should start."""

    contest: Contest
    home: Path
    jobs: list[Job] = field(default_factory=list)
    pending: list[PendingRun] = field(default_factory=list)
    tuned: dict[str, tuning.Tuned] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def arms(self) -> list[str]:
        """Arms as they are reported: `arm@length` in a contest of lengths."""
        arms, branches = [arm.name for arm in self.contest.arms], self.contest.table.branches
        return [f"{arm}@{n}" for n in branches.lengths for arm in arms] if branches else arms

    def write(self) -> None:
        """contest.toml, plan.json and tuning.json in the contest's folder."""
        self.home.mkdir(parents=True, exist_ok=True)
        write_atomically(self.home / "contest.toml", self.contest.text)
        self._file().write(self.home)
        if self.tuned:
            tuning.ledger(self.contest, self.tuned).write(self.home)

    def _file(self) -> PlanFile:
        """plan.json, whose arms have no lengths: the report tells lengths apart by itself."""
        return PlanFile(
            contest=self.contest.name,
            baseline=self.contest.table.baseline,
            target=self.contest.table.target,
            smallest=self.contest.table.smallest,
            text=self.contest.table.text,
            arms=tuple(arm.name for arm in self.contest.arms),
            runs=tuple(_row(job) for job in self.jobs),
            pending=tuple(self.pending),
            problems=tuple(self.problems),
            declared={arm.name: _declared(arm) for arm in self.contest.arms},
            against={arm.name: arm.against for arm in self.contest.arms if arm.against},
            history=next((e.check for e in reversed(history.read(self.home)[0])), ""),
        )


def make(contest: Contest, out: Path, ask: int = 0) -> Plan:
    """The plan as of now.

    ask: how many trials of a search may be open at once in each arm.

    Raises:
        ConfigError: a run's configuration is not valid, or it cannot branch as asked.
    """
    home = out.absolute() / contest.name
    past = attempts(home)
    plan = Plan(contest, home)
    if contest.tuned:
        plan.tuned = tuning.tune(contest, home, past, ask)
        for tuned in plan.tuned.values():
            plan.jobs += [job for trial in tuned.trials for job in trial.jobs]
    names = [arm.name for arm in contest.arms]
    for number in range(len(contest.seeds(contest.arms[0]))):  # all arms, then the next seeds
        ready: list[branches.Start] = []
        for arm in contest.arms:
            _report(plan, arm, contest.seeds(arm)[number], ready)
        plan.jobs += branches.trunks(contest, home, ready) if contest.table.branches else []
        # Another arm is first each time, so that none always gets the machine as it is then.
        ready.sort(key=lambda start: (names.index(start.arm.name) - number) % len(names))
        plan.jobs += [start.job for start in ready]
    plan.jobs = _unique(plan)
    if former := [job for job in plan.jobs if _has_former_folder(job)]:
        plan.problems.append(
            f"runs that an earlier version made, in folders whose names held data.dir and the"
            f" micro-batch: {len(former)} ({former[0].config.former_name}, ...); this version makes"
            " them anew, so finish this contest with the version that began it"
        )
    return plan


def _has_former_folder(job: Job) -> bool:
    """Whether the run has not begun, but was begun under the name that it had then."""
    old = job.directory.with_name(job.config.former_name)
    return not job.directory.exists() and old.exists()


def written(contest: Contest, out: Path) -> Plan | None:
    """The plan as it was last written; None without one, or if the contest file has changed.

    Raises:
        RecordError: plan.json is damaged.
    """
    home = out.absolute() / contest.name
    file, copy = PlanFile.read(home), home / "contest.toml"
    if file is None or not copy.exists() or copy.read_text(encoding="utf-8") != contest.text:
        return None
    plan = Plan(contest, home)
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
    """The job of a row of plan.json."""
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


def _declared(arm: Arm) -> tuple[str, ...]:
    """Dotted keys that the contest file sets or tunes for one arm."""
    overlays = [key for path in arm.configs for key in _keys(path)]
    return tuple(dict.fromkeys([*overlays, *arm.overrides, *arm.grid, *arm.ranges]))


@functools.cache  # as of the first reading, like the configurations of the runs
def _keys(path: str) -> tuple[str, ...]:
    """Dotted keys of an overlay."""
    return tuple(flat(tomllib.loads(Path(path).read_text(encoding="utf-8"))))


def _report(plan: Plan, arm: Arm, seeds: Seeds, ready: list[branches.Start]) -> None:
    """Add the reporting runs of one arm and its seeds, or the reason why there are none yet."""
    tuned, contest = plan.tuned.get(arm.name), plan.contest
    lengths = contest.table.branches.lengths if contest.table.branches else [None]
    labels = [f"{arm.name}@{length}" if length else arm.name for length in lengths]
    if tuned and not tuned.settled:
        plan.pending += [PendingRun(arm=label, seed=seeds[0]) for label in labels]
    elif tuned and tuned.best is None:
        problem = f"arm '{arm.name}': all {tuned.budget} trials failed or diverged"
        problem += "; it has no setting to report with"
        plan.problems += [problem] if problem not in plan.problems else []
    else:
        trial = tuned.best if tuned else None
        for label, length in zip(labels, lengths, strict=True):
            job = build(contest, plan.home, arm, seeds, "report", trial, label=label, length=length)
            ready.append(branches.Start(arm, job))


def _unique(plan: Plan) -> list[Job]:
    """Each folder once; a reporting run that two arms share becomes a problem line."""
    order = {arm.name: number for number, arm in enumerate(plan.contest.arms)}
    found: dict[Path, Job] = {}
    for job in sorted(plan.jobs, key=lambda job: order[job.contestant]):
        first = found.setdefault(job.directory, job)
        if first.arm != job.arm and job.role == "report":
            arms = f"arms '{first.arm}' and '{job.arm}'"
            same = f"came out of tuning as the same run {job.id}"
            plan.problems.append(f"{arms} {same}; it counts for '{first.arm}' only")
    return [job for job in plan.jobs if found[job.directory] is job]


def check(contest: Contest, home: Path, nproc: int = 1) -> None:
    """Find what is wrong with the runs before one starts; `nproc`: ranks of each.

    Raises:
        ConfigError: a run cannot be done as the contest file says.
    """
    owners: dict[str, str] = {}
    for arm in contest.arms:
        if contest.tuned:
            tuning.own_setting(contest, arm)  # raises if it lacks a tuned key
        for setting in arm.settings() if arm.grid else []:
            build(contest, home, arm, contest.seeds(arm)[0], "report", setting)
        lengths = contest.table.branches.lengths if contest.table.branches else [None]
        for seeds, length in itertools.product(contest.seeds(arm), lengths):
            job = build(contest, home, arm, seeds, "report", length=length)
            if (owner := owners.setdefault(job.id, arm.name)) != arm.name:
                problem = f"arms '{owner}' and '{arm.name}' are the same run {job.id}"
                remedy = "change one (data.dir and the micro-batch do not count), remove it, or, "
                remedy += "to compare an arm with itself, give one of "
                remedy += "them `seeds` of its own"
                raise ConfigError(f"{problem}; {remedy}")
            if seeds == contest.seeds(arm)[0]:
                _check_run(arm, job.config, nproc)
    make(contest, home.parent)  # raises if a branch does not fit


def check_data(plan: Plan) -> None:
    """Check once that the tokens are there, instead of in every run.

    Raises:
        ConfigError: a folder of tokens is missing.
    """
    for folder in dict.fromkeys(job.config.data.dir for job in plan.jobs):
        if not Path(folder).is_dir():
            problem = f"no folder {folder}, where data.dir says the tokens are"
            remedy = "prepare it (the contest file or docs/data.md says how), or change data.dir"
            raise ConfigError(f"{problem}; {remedy}")


def _check_run(arm: Arm, config: Config, nproc: int) -> None:
    """Whether the parts of a run's configuration fit each other."""
    from optim.by_role import check  # imports torch

    try:
        check(config, nproc)
    except ConfigError as error:
        raise ConfigError(f"arm '{arm.name}': {error}") from None
