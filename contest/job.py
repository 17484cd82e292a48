"""One run of a contest: what train_gpt2.py is given, where it leaves its record, how it stands."""

from __future__ import annotations

import functools
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from configs import Config, ConfigError, load
from contest.attempts import Attempts, attempts, tail
from contest.file import Arm, Contest, Seeds, Setting
from record import parents, runlog
from record.contest import Role, group
from record.metrics import is_outdated, summarize
from storage import is_locked

ROOT = Path(__file__).parent.parent

State = Literal["finished", "diverged", "stopped", "running", "failed", "waiting", "queued"]
ENDED = ("finished", "diverged")  # states of a run that is never run again


@dataclass(frozen=True)
class Job:
    """A run of the trainer. `id` is unique in the contest and names its log."""

    id: str
    arm: str
    role: Role
    seed: int
    data_seed: int
    trial: Setting | None  # the tuned keys and their values
    length: int | None  # updates, in a contest with [contest.branches]
    after: str | None  # id of the trunk segment whose end this run starts from
    directory: Path  # absolute; of the run
    arguments: list[str]  # of train_gpt2.py, without --log.*
    home: Path  # absolute; the contest's folder

    @property
    def contestant(self) -> str:
        """The arm without its length: what records and reports call it."""
        return self.arm.removesuffix(f"@{self.length}")

    @property
    def config(self) -> Config:
        """The resolved configuration."""
        return resolved(tuple(self.arguments))

    @property
    def total_steps(self) -> int:
        """Updates of the run; unlike `config` known without importing torch."""
        return load(self.arguments).train.total_steps

    @property
    def log(self) -> Path:
        """Its output, all attempts."""
        return self.home / "logs" / f"{self.id}.log"

    def words(self) -> list[str]:
        """All arguments of train_gpt2.py, which refuses an own class that was edited since."""
        of_role = group(self.home.name, self.role)
        where = {"dir": str(self.directory.parent), "group": of_role, "job_type": self.contestant}
        words = [*self.arguments, *(w for k, v in where.items() for w in (f"--log.{k}", v))]
        versions = ", ".join(f'"{k}" = "{v}"' for k, v in self.config.versions.items())
        return [*words, *([f"--versions={{{versions}}}"] if versions else [])]

    def command(self, nproc: int = 1) -> list[str]:
        """The command line of its process, which starts `nproc` ranks if they are several."""
        if nproc > 1:
            return [sys.executable, "-m", "launch", f"--nproc={nproc}", *self.words()]
        return [sys.executable, str(ROOT / "train_gpt2.py"), *self.words()]


@functools.cache
def resolved(arguments: tuple[str, ...]) -> Config:
    """The complete configuration of a command line.

    Raises:
        ConfigError: it is not valid.
    """
    import optim  # imports torch, which takes seconds: `--status` does without

    return parents.resolved(optim.resolve(load(arguments)))


def schedule_factors(config: Config, **schedule: Any) -> tuple[float, ...]:
    """Factors of all updates; `schedule` replaces the configuration's own.

    Raises:
        ConfigError: the schedule does not fit the run.
    """
    import optim

    if not schedule:
        return optim.schedule_of(config).factors[:-1]
    return optim.build_schedule(total_steps=config.train.total_steps, **schedule).factors[:-1]


def build(
    contest: Contest,
    home: Path,
    arm: Arm,
    seeds: Seeds,
    role: Role,
    trial: Setting | None = None,
    *,
    label: str | None = None,
    length: int | None = None,
) -> Job:
    """The job of one run.

    Raises:
        ConfigError: its configuration is not valid; the line names the arm.
    """
    steps = {"train.total_steps": length} if length else {}
    arguments = contest.arguments(arm, seeds, trial or {}, steps)
    return job(home, label or arm.name, role, seeds, arguments, trial, length=length)


def job(
    home: Path,
    label: str,
    role: Role,
    seeds: Seeds,
    arguments: list[str],
    trial: Setting | None,
    *,
    length: int | None = None,
    after: str | None = None,
) -> Job:
    """The job of a command line.

    Raises:
        ConfigError: it is not valid; the line names the arm, `label`.
    """
    try:
        run = resolved(tuple(arguments)).run_name
    except ConfigError as error:
        raise ConfigError(f"arm '{label}': {error}") from None
    folder = home if role == "report" else home / role
    # A trunk may be the same run as a reporting run, but has a folder of its own.
    name = f"trunk-{run}" if role == "trunk" else run
    return Job(name, label, role, *seeds, trial, length, after, folder / run, arguments, home)


def state(job: Job, past: Attempts | None = None) -> State:
    """How the run stands, from the disk alone; `past` is attempts(job.home), if known.

    waiting: it has not begun. stopped: it has begun, and the same command resumes it. failed: its
    last attempt ended with an error of its own, and only --retry-failed runs it again.
    """
    if not job.directory.exists():
        begun = False
    elif is_locked(job.directory):
        return "running"
    else:
        summary = runlog.read_summary(job.directory)
        if summary:
            return summary["status"]
        begun = True
    ended = (attempts(job.home) if past is None else past).get(job.id)
    if ended and ended[-1]["exit_code"] >= 0:  # below 0: the signal that killed it
        return "failed"
    return "stopped" if begun else "waiting"


def progress(job: Job) -> tuple[int, float | None]:
    """(updates done, last training loss) of a run that has not ended, from its metrics."""
    for line in reversed(tail(job.directory / runlog.METRICS, 4096)):
        try:
            values = runlog.decode(line.encode())
        except ValueError:
            continue  # the line is being written
        if "train/loss" in values:
            return values["step"] + 1, values["train/loss"]
    return 0, None


def final_loss(job: Job) -> float:
    """Final validation loss of a run that has ended, nats per token; infinite if it diverged."""
    summary = runlog.read_summary(job.directory) or {}
    if is_outdated(summary):
        summary |= summarize(runlog.read_metrics(job.directory), job.total_steps)
    loss = summary.get("final_val_loss")
    bad = summary.get("status") == "diverged" or summary.get("diverged")
    return math.inf if bad or loss is None else float(loss)


def python_path() -> str:
    """PYTHONPATH with the checkout, so that an arm's own classes are found from any folder."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
