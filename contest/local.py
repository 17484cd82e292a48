"""Runs of a contest on this machine: as many at once as it has slots, each a process of its own.

A slot is a set of GPUs, or some CPU cores. Whatever ends, ends alone: a failed run is written down
and the others go on. What is killed loses nothing, since everything that matters is on disk: the
runs' own records and attempts.jsonl.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from configs import ConfigError
from contest import branches
from contest.attempts import LAST_LINES, attempts, killed_by, note, tail
from contest.job import ENDED, ROOT, Job, State, progress, resolved, state
from contest.plan import Plan
from record import runlog

TICK = 0.2  # s between looks at the processes


@dataclass(frozen=True)
class Options:
    """What the command line says about processes; None: what fits this machine."""

    jobs: int | None = None
    gpus_per_run: int | None = None
    nproc: int | None = None  # ranks of a run
    retry_failed: bool = False


@dataclass(frozen=True)
class Slot:
    """A place for one run."""

    name: str
    environment: Mapping[str, str]
    nproc: int  # torchrun's ranks; 0: plain python


class Watch(Protocol):
    """Who is told how it goes."""

    def began(self, job: Job, slot: Slot) -> None:
        """A run's process was started."""

    def ended(self, job: Job, now: State, lines: list[str], seconds: float) -> None:
        """It ended; `lines` are the last ones of its output."""

    def tick(self, runner: Runner) -> None:
        """Called several times a second."""

    def say(self, text: str) -> None:
        """One line for the user."""


@dataclass
class Attempt:
    """A live process of ours."""

    job: Job
    slot: Slot
    process: subprocess.Popen[bytes]
    started: str
    clock: float
    first_step: int  # where it began or went on
    asked: bool = False  # to stop
    step: int = 0  # updates done, when last looked
    loss: float | None = None


def visible_gpus() -> list[str]:
    """Names of this machine's GPUs as CUDA_VISIBLE_DEVICES takes them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def slots(options: Options, gpus: list[str], cores: int) -> list[Slot]:
    """The places for runs, by GPUs where there are some and by cores else. Raises ConfigError."""
    per_run = options.gpus_per_run
    if per_run is None:
        per_run = min(len(gpus), options.nproc or 1)
    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs} should be 1 or more")
    if per_run:
        jobs = options.jobs or len(gpus) // per_run
        if not jobs or jobs * per_run > len(gpus):
            raise ConfigError(f"--jobs {max(jobs, 1)} with --gpus-per-run {per_run} needs "
                              f"{max(jobs, 1) * per_run} GPUs, {len(gpus)} visible; lower one of "
                              "them, or give --gpus-per-run 0 for CPU cores")  # fmt: skip
        groups = [gpus[i * per_run : (i + 1) * per_run] for i in range(jobs)]
        threads = max(1, cores // (jobs * per_run))
        return [
            Slot(f"GPU {','.join(g)}", _environment(",".join(g), threads), options.nproc or per_run)
            for g in groups
        ]
    ranks = options.nproc or 0
    jobs = options.jobs or max(1, cores // max(1, ranks))
    threads = max(1, cores // (jobs * max(1, ranks)))
    return [
        Slot(f"{threads} threads", _environment("", threads), ranks if ranks > 1 else 0)
        for _ in range(jobs)
    ]


def _environment(gpus: str, threads: int) -> dict[str, str]:
    """Waiting threads sleep: on shared cores spinning ones make a step several times slower."""
    passive = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    return {
        "CUDA_VISIBLE_DEVICES": gpus,
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": passive,
        "PYTHONUNBUFFERED": "1",
    }


@dataclass
class Runner:
    """Keeps all slots busy until nothing is left that can run."""

    refresh: Callable[[], Plan]  # the plan as of now
    places: list[Slot]
    options: Options
    watch: Watch
    live: dict[str, Attempt] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)  # once each, or a broken one would run for ever
    states: dict[str, State] = field(default_factory=dict)
    steps: int = 0  # updates done by attempts that ended
    seconds: float = 0.0  # that they took
    stopping: bool = False

    def run(self) -> Plan:
        """Everything that is missing; returns the last plan."""
        self.look()
        with stop_signals() as received:
            while True:
                if received and not self.stopping:
                    self.stop()
                elif len(received) > 1:
                    self.kill()
                if not self.stopping:
                    self.fill()
                if not self.live and (self.stopping or not self.elsewhere()):
                    return self.plan
                self.watch.tick(self)
                time.sleep(TICK)
                self.collect()

    def look(self) -> None:
        """Read the plan and the states of its runs from disk."""
        self.plan = self.refresh()
        self.plan.write()
        past = attempts(self.plan.home)
        self.states = {job.id: state(job, past) for job in self.plan.jobs}

    def fill(self) -> None:
        """Begin runs on all free slots."""
        for job in self.plan.jobs:
            if len(self.live) == len(self.places):
                return
            if self.ready(job):
                busy = [attempt.slot for attempt in self.live.values()]
                self.begin(job, next(s for s in self.places if not any(s is b for b in busy)))

    def ready(self, job: Job) -> bool:
        """Whether a run can begin now."""
        now = self.states[job.id]
        if job.id in self.tried or now in ENDED or now == "running":
            return False
        if now == "failed" and not self.options.retry_failed:
            return False
        # One whose trunk diverged would diverge just so, and may begin at its own beginning.
        return job.after is None or self.states[job.after] in ENDED

    def elsewhere(self) -> bool:
        """Whether somebody else's process still trains one of the runs, as after kill -9.

        It ends soon by itself; then the run is ours.
        """
        others = [job for job in self.plan.jobs if self.states[job.id] == "running"]
        if others:
            past = attempts(self.plan.home)
            self.states |= {job.id: state(job, past) for job in others}
        return bool(others)

    def begin(self, job: Job, slot: Slot) -> None:
        """Start the process, in a session of its own: Ctrl-C is for us to pass on."""
        self.tried.add(job.id)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        if job.after and not self.prepared(job):
            return
        with job.log.open("ab") as log:
            log.write(f"--- {runlog.now()}, {slot.name}: {' '.join(job.words())}\n".encode())
            log.flush()
            process = subprocess.Popen(
                job.command(slot.nproc),
                env=os.environ | slot.environment | {"PYTHONPATH": python_path()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with(os.getpid()),
            )
        first, _ = progress(job)
        self.live[job.id] = Attempt(job, slot, process, runlog.now(), time.monotonic(), first,
                                    step=first)  # fmt: skip
        self.watch.began(job, slot)

    def prepared(self, job: Job) -> bool:
        """The folder of a run that branches; False where that failed, which is written down."""
        source = next(other for other in self.plan.jobs if other.id == job.after)
        if self.states[source.id] == "diverged":
            return True
        try:
            branches.prepare(source.directory, resolved(tuple(job.words())))
        except (ConfigError, runlog.RecordError, OSError) as error:
            with job.log.open("a") as log:
                log.write(f"error: {error}\n")
            note(job.home, job.id, runlog.now(), 2, [f"error: {error}"])
            self.states[job.id] = "failed"
            self.watch.ended(job, "failed", [f"error: {error}"], 0.0)
            return False
        return True

    def collect(self) -> None:
        """Write down what has ended, and look again."""
        over = [attempt for attempt in self.live.values() if attempt.process.poll() is not None]
        for attempt in over:
            job, code = attempt.job, attempt.process.returncode
            del self.live[job.id]
            seconds = time.monotonic() - attempt.clock
            lines = tail(job.log)[-LAST_LINES:]
            self.steps += max(0, progress(job)[0] - attempt.first_step)
            self.seconds += seconds
            note(job.home, job.id, attempt.started, exit_code(code, attempt, lines), lines)
            self.look()
            self.watch.ended(job, self.states.get(job.id, "failed"), lines, seconds)
        for attempt in self.live.values():
            attempt.step, attempt.loss = progress(attempt.job)

    def stop(self) -> None:
        """Ask all runs to checkpoint and end."""
        self.stopping = True
        self.watch.say(f"stopping: {len(self.live)} runs write a checkpoint and end; the same "
                       "command goes on from there (once more: kills them)")  # fmt: skip
        for attempt in self.live.values():
            attempt.asked = True
            attempt.process.terminate()

    def kill(self) -> None:
        """End them now; their last checkpoints stay."""
        for attempt in self.live.values():
            attempt.process.kill()

    def left(self) -> float | None:
        """Seconds until all is done, at the pace so far; None before there is one."""
        own = self.live.values()
        steps = self.steps + sum(max(0, a.step - a.first_step) for a in own)
        seconds = self.seconds + sum(time.monotonic() - a.clock for a in own)
        if not steps:
            return None
        return remaining(self.plan, self.states) * seconds / steps / len(self.places)


def remaining(plan: Plan, states: Mapping[str, State]) -> int:
    """Updates that are still to be done, tuning and what waits for it included."""
    total, length = 0, 0
    for job in plan.jobs:
        length = job.config.train.total_steps
        if states[job.id] not in (*ENDED, "failed"):
            total += length - progress(job)[0]
    return total + length * len(plan.pending)


def exit_code(code: int, attempt: Attempt, lines: list[str]) -> int:
    """Of the run itself: negative, the signal, where it was ended from outside."""
    if code > 0 and attempt.asked:
        return -signal.SIGTERM
    return (killed_by(lines) if attempt.slot.nproc and code > 0 else None) or code


def python_path() -> str:
    """With the checkout, so that an arm's own classes are found from any folder."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def end_with(planner: int) -> Callable[[], None] | None:
    """For the child: the kernel sends it SIGTERM when this process dies, even by SIGKILL.

    Linux only; elsewhere the lock of the run's folder keeps a second planner waiting.
    """
    if sys.platform != "linux":
        return None
    prctl, pr_set_pdeathsig = ctypes.CDLL(None).prctl, 1

    def prepare() -> None:
        prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != planner:  # it died just before
            os._exit(1)

    return prepare


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Signals received meanwhile that ask this process to stop."""
    received: list[int] = []
    caught = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup stays what it says
        caught.append(signal.SIGHUP)
    before = {n: signal.signal(n, lambda number, _: received.append(number)) for n in caught}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def cores() -> int:
    """That this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
