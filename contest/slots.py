"""The places for runs on this machine: sets of GPUs, or some CPU cores each."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from configs import ConfigError
from contest.job import Job, python_path
from launch.signals import end_with


@dataclass(frozen=True)
class Slot:
    """A place for one run."""

    name: str
    environment: Mapping[str, str]
    nproc: int  # ranks

    def start(self, job: Job, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the process of a run here; the kernel asks it to stop if this process dies.

        It has a session of its own, so that Ctrl-C reaches this process only.
        """
        return subprocess.Popen(
            job.command(self.nproc),
            env=os.environ | self.environment | {"PYTHONPATH": python_path()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with(os.getpid()),
        )


def slots(
    gpus: list[str],
    cores: int,
    *,
    jobs: int | None = None,
    gpus_per_run: int | None = None,
    runs_per_gpu: int | None = None,
    nproc: int | None = None,
) -> list[Slot]:
    """The slots of a machine: by GPUs if there are some, else by cores.

    jobs: slots. nproc: ranks of a run. None: what fits the machine.
    runs_per_gpu: runs of one GPU each that share it.

    Raises:
        ConfigError: there are fewer GPUs than asked for, or what has more than one is to share it.
    """
    if gpus_per_run is None:
        gpus_per_run = min(len(gpus), nproc or 1)
    share = runs_per_gpu or 1
    if share > 1 and not gpus:
        raise ConfigError(f"--runs-per-gpu {share} needs a GPU, and none is visible; leave it out")
    if share > 1 and (gpus_per_run, nproc or 1) != (1, 1):
        given = f"--gpus-per-run {gpus_per_run} and --nproc {nproc or gpus_per_run}"
        remedy = "runs that share a GPU have one GPU and one process each"
        raise ConfigError(f"--runs-per-gpu {share} with {given}; {remedy}")
    gpus = gpus * share
    if gpus_per_run:
        return _slots_of_gpus(gpus, cores, jobs, gpus_per_run, nproc or gpus_per_run)
    return _slots_of_cores(cores, jobs, nproc or 1)


def _slots_of_gpus(
    gpus: list[str], cores: int, jobs: int | None, per_run: int, nproc: int
) -> list[Slot]:
    jobs = jobs or len(gpus) // per_run
    if not jobs or jobs * per_run > len(gpus):
        jobs = max(jobs, 1)
        needed = f"--jobs {jobs} with --gpus-per-run {per_run} needs {jobs * per_run} GPUs"
        remedy = "lower one of them, or give --gpus-per-run 0 for CPU cores"
        raise ConfigError(f"{needed}, there is room on {len(gpus)}; {remedy}")
    threads = max(1, cores // (jobs * per_run))
    names = [",".join(gpus[i * per_run : (i + 1) * per_run]) for i in range(jobs)]
    return [Slot(f"GPU {name}", _environment(name, threads), nproc) for name in names]


def _slots_of_cores(cores: int, jobs: int | None, ranks: int) -> list[Slot]:
    jobs = jobs or max(1, cores // ranks)
    threads = max(1, cores // (jobs * ranks))
    return [Slot(f"{threads} threads", _environment("", threads), ranks) for _ in range(jobs)]


def _environment(gpus: str, threads: int) -> dict[str, str]:
    """Of a run. Waiting threads sleep: on shared cores, spinning ones slow all runs down."""
    return {
        "CUDA_VISIBLE_DEVICES": gpus,
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "PYTHONUNBUFFERED": "1",
    }
