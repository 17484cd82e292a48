"""Runs of a contest on SLURM: job arrays of launch/slurm.sbatch, one task for each run.

SLURM places, queues and requeues; the disk says what is done. A submission is a file in the
contest's folder, `slurm/<number>.txt`, with one line per run. Its job name is made from that folder
and number, so that squeue tells which of its runs are queued or running. There is no other state:
the same command, given again at any time, submits what has become possible, and nothing twice.
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
from contest.job import ENDED, ROOT, Job, State, python_path, state
from contest.plan import Plan

FOLDER = "slurm"  # of the submissions, in the contest's folder


@dataclass(frozen=True)
class Options:
    """What the command line says about SLURM jobs."""

    partition: str | None
    time: str | None  # limit of one job, as sbatch takes it; a run may need several
    nodes: int  # of a run
    gpus_per_run: int | None  # on all its nodes together; None: one on each
    nproc: int | None  # ranks on each node; None: its GPUs, or 1
    jobs: int | None  # tasks of an array at once
    sbatch: str  # more options of sbatch
    retry_failed: bool

    @property
    def gpus_per_node(self) -> int:
        """GPUs of a run on each of its nodes.

        Raises:
            ConfigError: the nodes cannot share the GPUs equally.
        """
        gpus = self.nodes if self.gpus_per_run is None else self.gpus_per_run
        if gpus % self.nodes:
            raise ConfigError(
                f"--gpus-per-run {gpus} cannot be shared by --nodes {self.nodes}; give a multiple"
            )
        return gpus // self.nodes

    @property
    def world_size(self) -> int:
        """Ranks of a run."""
        return self.nodes * (self.nproc or self.gpus_per_node or 1)

    def words(self) -> list[str]:
        """Options of sbatch."""
        words = [f"--nodes={self.nodes}"]
        words += [f"--gpus-per-node={self.gpus_per_node}"] if self.gpus_per_node else []
        words += [f"--partition={self.partition}"] if self.partition else []
        words += [f"--time={self.time}"] if self.time else []
        return words + shlex.split(self.sbatch)

    def environment(self) -> dict[str, str]:
        """The environment of sbatch, and so of the job."""
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
    """How every run stands, from the disk and from squeue.

    Raises:
        ConfigError: SLURM is not there, or does not answer.
    """
    past, queued = attempts(plan.home), queue(plan.home)
    found = {job.id: state(job, past) for job in plan.jobs}
    return {run: now if now in ENDED else queued.get(run, now) for run, now in found.items()}


def submit(plan: Plan, options: Options) -> list[Submission]:
    """Submit every run that can start and is not queued or running.

    Raises:
        ConfigError: SLURM is not there, or refuses; the line has its reason.
    """
    now = states(plan)
    ready = [job for job in plan.jobs if _runnable(job, now, options.retry_failed)]
    at_once = _largest_array() if ready else 1
    groups = [ready[i : i + at_once] for i in range(0, len(ready), at_once)]
    return [Submission(_submit(plan, group, options), group) for group in groups]


def _runnable(job: Job, states: Mapping[str, State], retry_failed: bool) -> bool:
    """Whether a run can start or resume now."""
    wanted = {"waiting", "stopped"} | ({"failed"} if retry_failed else set())
    return states[job.id] in wanted and (job.after is None or states[job.after] in ENDED)


def _submit(plan: Plan, jobs: Sequence[Job], options: Options) -> str:
    """Submit one array; returns its number."""
    folder, logs = plan.home / FOLDER, plan.home / "logs"
    folder.mkdir(exist_ok=True)
    logs.mkdir(exist_ok=True)
    number = 1 + max((int(path.stem) for path in folder.glob("*.txt")), default=0)
    ended_well = {job.id: job.directory for job in plan.jobs if state(job) != "diverged"}
    lines = [_line(job, ended_well) for job in jobs]
    file = folder / f"{number}.txt"
    file.write_text("".join(lines), encoding="utf-8")
    limit = f"%{options.jobs}" if options.jobs else ""
    words = ["--parsable", "--export=ALL", f"--job-name={_job_name(file)}"]
    words += [f"--array=0-{len(jobs) - 1}{limit}", f"--output={folder / f'{number}.log'}"]
    words += [*options.words(), str(ROOT / "launch/slurm.sbatch"), str(file)]
    try:
        answer = _command(["sbatch", *words], options.environment())
    except ConfigError:
        file.unlink()
        raise
    return answer.strip().partition(";")[0]  # NUMBER or NUMBER;CLUSTER


def _line(job: Job, trunks: Mapping[str, Path]) -> str:
    """One line of the file that tasks read: id, folder, trunk to branch from or '', arguments."""
    trunk = str(trunks.get(job.after or "", ""))  # not one that diverged, since this run would too
    return shlex.join([job.id, str(job.directory), trunk, *job.words()]) + "\n"


def _job_name(file: Path) -> str:
    """The job name of a submission; contests of one name differ in the hash of their folder."""
    home = file.parent.parent
    return f"{home.name}-{hashlib.sha256(bytes(home)).hexdigest()[:6]}-{file.stem}"


def queue(home: Path) -> dict[str, State]:
    """The runs that are queued or running, by id.

    Raises:
        ConfigError: SLURM is not there, or does not answer.
    """
    files = {_job_name(file): file for file in (home / FOLDER).glob("*.txt")}
    if not files:
        return {}
    names = f"--name={','.join(files)}"
    answer = _command(["squeue", "--noheader", "--array", names, "--format=%j|%K|%T"])
    found: dict[str, State] = {}
    ids: dict[str, list[str]] = {}
    for row in answer.splitlines():
        name, index, now = row.split("|")
        if name not in ids:
            ids[name] = [shlex.split(x)[0] for x in files[name].read_text("utf-8").splitlines()]
        found[ids[name][int(index)]] = "queued" if now in ("PENDING", "REQUEUED") else "running"
    return found


def _largest_array() -> int:
    """Tasks that SLURM takes in one array; 1,000 by default."""
    for row in _command(["scontrol", "show", "config"]).splitlines():
        if row.startswith("MaxArraySize"):
            return int(row.split("=")[1]) - 1
    return 1000


def _command(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Output of a SLURM command; a ConfigError has what it says if it fails."""
    try:
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    except FileNotFoundError:
        remedy = "--executor slurm is for a login node of a SLURM cluster, --executor local for "
        remedy += "any other"
        raise ConfigError(f"no {words[0]} on this machine; {remedy}") from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{words[0]} gave no answer in 60 s; see scontrol ping") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        hint = "; --gpus-per-run 0 asks for CPUs only" if "gres" in said.lower() else ""
        raise ConfigError(f"{said}{hint}")
    return done.stdout
