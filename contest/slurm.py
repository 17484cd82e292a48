"""Runs of a contest on SLURM: job arrays of launch/slurm.sbatch, one task for each run.

SLURM places, queues and requeues; the disk says what is done. Nothing else is kept: a submission
is a file in the contest's folder, `slurm/<number>.txt`, with one line per run, and a job name made
from that folder and number, by which squeue tells which of its runs are still on their way. So the
same command, given again at any time, submits what has become possible and nothing twice.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs import ConfigError
from contest.attempts import attempts
from contest.job import ENDED, ROOT, Job, State, state
from contest.local import python_path
from contest.plan import Plan

FOLDER = "slurm"  # of the submissions, in the contest's folder


@dataclass(frozen=True)
class Options:
    """What the command line says about SLURM jobs."""

    partition: str | None = None
    time: str | None = None  # limit of one job, as sbatch takes it; a run may need several
    nodes: int = 1  # of a run
    gpus_per_run: int | None = None  # on all its nodes; None: one on each
    nproc: int | None = None  # ranks on each node; None: its GPUs, or 1
    jobs: int | None = None  # tasks of an array at once
    sbatch: str = ""  # more options of sbatch
    retry_failed: bool = False

    @property
    def gpus_per_node(self) -> int:
        """Raises ConfigError where they do not divide."""
        gpus = self.nodes if self.gpus_per_run is None else self.gpus_per_run
        if self.nodes < 1 or gpus % self.nodes:
            raise ConfigError(
                f"--gpus-per-run {gpus} cannot be shared by --nodes {self.nodes}; give a multiple"
            )
        return gpus // self.nodes

    @property
    def world_size(self) -> int:
        """Ranks of a run."""
        return self.nodes * (self.nproc or self.gpus_per_node or 1)

    def words(self) -> list[str]:
        """For sbatch."""
        words = [f"--nodes={self.nodes}"]
        words += [f"--gpus-per-node={self.gpus_per_node}"] if self.gpus_per_node else []
        words += [f"--partition={self.partition}"] if self.partition else []
        words += [f"--time={self.time}"] if self.time else []
        return words + shlex.split(self.sbatch)

    def environment(self) -> dict[str, str]:
        """Of sbatch, and so of the job."""
        own = {"PYTHON": sys.executable, "PYTHONPATH": python_path()}
        own |= {"TRAINER": str(ROOT / "train_gpt2.py")}
        own |= {"NPROC": str(self.nproc)} if self.nproc else {}
        return {key: value for key, value in os.environ.items() if key != "NPROC"} | own


@dataclass(frozen=True)
class Submission:
    """One job array."""

    number: str  # that SLURM gave it
    jobs: list[Job]


def states(plan: Plan) -> dict[str, State]:
    """How every run stands, from the disk and from squeue. Raises ConfigError without SLURM."""
    past, on_their_way = attempts(plan.home), queue(plan.home)
    found: dict[str, State] = {}
    for job in plan.jobs:
        now = state(job, past)
        found[job.id] = on_their_way.get(job.id, now) if now not in ENDED else now
    return found


def submit(plan: Plan, options: Options) -> list[Submission]:
    """Submit every run that can begin and is not on its way; raises ConfigError, one line."""
    now = states(plan)
    ready = [job for job in plan.jobs if runnable(job, now, options.retry_failed)]
    at_once = largest_array() if ready else 1
    groups = [ready[i : i + at_once] for i in range(0, len(ready), at_once)]
    return [Submission(_submit(plan, group, options), group) for group in groups]


def runnable(job: Job, states: Mapping[str, State], retry_failed: bool) -> bool:
    """Whether a run can begin, or go on, now."""
    wanted = {"waiting", "stopped"} | ({"failed"} if retry_failed else set())
    return states[job.id] in wanted and (job.after is None or states[job.after] in ENDED)


def _submit(plan: Plan, jobs: Sequence[Job], options: Options) -> str:
    """One array; returns its number. Raises ConfigError with what sbatch says."""
    folder, logs = plan.home / FOLDER, plan.home / "logs"
    folder.mkdir(exist_ok=True)
    logs.mkdir(exist_ok=True)
    number = 1 + max((int(path.stem) for path in folder.glob("*.txt")), default=0)
    ended_well = {job.id: job.directory for job in plan.jobs if state(job) != "diverged"}
    lines = [line(job, ended_well) for job in jobs]
    file = folder / f"{number}.txt"
    file.write_text("".join(lines), encoding="utf-8")
    limit = f"%{options.jobs}" if options.jobs else ""
    try:
        return command(
            ["sbatch", "--parsable", "--export=ALL", f"--job-name={job_name(file)}",
             f"--array=0-{len(jobs) - 1}{limit}", f"--output={folder / f'{number}.log'}",
             *options.words(), str(ROOT / "launch/slurm.sbatch"), str(file)],
            options.environment(),
        ).strip().partition(";")[0]  # fmt: skip
    except ConfigError:
        file.unlink()
        raise


def line(job: Job, trunks: Mapping[str, Path]) -> str:
    """Of the file that a task reads: id, folder, trunk to branch from or '', arguments."""
    trunk = str(trunks.get(job.after or "", ""))  # none that diverged: so would the branch
    return shlex.join([job.id, str(job.directory), trunk, *job.words()]) + "\n"


def job_name(file: Path) -> str:
    """Of a submission; two contests of one name have different folders."""
    home = file.parent.parent
    return f"{home.name}-{hashlib.sha256(bytes(home)).hexdigest()[:6]}-{file.stem}"


def queue(home: Path) -> dict[str, State]:
    """The runs that SLURM has not done with, by id. Raises ConfigError without SLURM."""
    files = {job_name(file): file for file in (home / FOLDER).glob("*.txt")}
    if not files:
        return {}
    answer = command(["squeue", "--noheader", "--array", f"--name={','.join(files)}",
                      "--format=%j|%K|%T"])  # fmt: skip
    found: dict[str, State] = {}
    ids: dict[str, list[str]] = {}
    for row in answer.splitlines():
        name, index, now = row.split("|")
        if name not in ids:
            ids[name] = [shlex.split(x)[0] for x in files[name].read_text("utf-8").splitlines()]
        found[ids[name][int(index)]] = "queued" if now in ("PENDING", "REQUEUED") else "running"
    return found


def largest_array() -> int:
    """Tasks that SLURM takes in one array (1,000 by default). Raises ConfigError without SLURM."""
    for row in command(["scontrol", "show", "config"]).splitlines():
        if row.startswith("MaxArraySize"):
            return int(row.split("=")[1]) - 1
    return 1000


def command(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Output of a SLURM command. Raises ConfigError with its error."""
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60,
                              check=False)  # fmt: skip
    except FileNotFoundError:
        raise ConfigError(f"no {words[0]} on this machine; --executor slurm is for a login node of "
                          "a SLURM cluster, --executor local for any other") from None  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{words[0]} gave no answer in 60 s; see scontrol ping") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        hint = "; --gpus-per-run 0 asks for CPUs only" if "gres" in said.lower() else ""
        raise ConfigError(f"{said}{hint}")
    return done.stdout
