"""Runs of a contest on this machine: as many at once as it has slots, each in its own process.

Each run ends alone: a failed one is written down, and the others go on. A kill loses nothing, since
everything that matters is on disk: the runs' own records, and attempts.jsonl.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from configs import ConfigError
from contest import branches
from contest.attempts import LAST_LINES, attempts, note, tail
from contest.job import ENDED, Job, State, progress, resolved, state
from contest.plan import Plan
from contest.slots import Slot
from launch.signals import stop_requests
from record import runlog

TICK = 0.2  # s between looks at the processes


class Watch(Protocol):
    """Whoever is told how the runs are doing."""

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
    """A live process that this runner has started."""

    job: Job
    slot: Slot
    process: subprocess.Popen[bytes]
    started: str
    clock: float
    first_step: int  # where it started or resumed
    stop_requested: bool = False
    step: int = 0  # updates done, at the last look
    loss: float | None = None


@dataclass
class Runner:
    """Keeps all slots busy until nothing is left that can run."""

    refresh: Callable[[], Plan]  # the plan as of now
    places: list[Slot]
    watch: Watch
    retry_failed: bool
    live: dict[str, Attempt] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    stopping: bool = False
    tried: set[str] = field(default_factory=set)  # each run once, or a broken one would loop
    steps: int = 0  # updates done by attempts that have ended
    seconds: float = 0.0  # that they took

    def run(self) -> Plan:
        """Run everything that is missing; returns the last plan."""
        self._refresh_plan()
        with stop_requests() as received:
            while True:
                if received and not self.stopping:
                    self._stop()
                elif len(received) > 1:
                    self._kill()
                elsewhere = self._runs_elsewhere()
                if not self.stopping:
                    self._fill()
                if not self.live and (self.stopping or not elsewhere):
                    return self.plan
                self.watch.tick(self)
                time.sleep(TICK)
                self._collect()

    def left(self) -> float | None:
        """Seconds until all is done, at the pace so far; None before there is one."""
        own = self.live.values()
        steps = self.steps + sum(max(0, a.step - a.first_step) for a in own)
        seconds = self.seconds + sum(time.monotonic() - a.clock for a in own)
        if not steps:
            return None
        return _remaining(self.plan, self.states) * seconds / steps / len(self.places)

    def _refresh_plan(self) -> None:
        """Make the plan anew and write it; read the states of its runs."""
        self.plan = self.refresh()
        self.plan.write()
        past = attempts(self.plan.home)
        self.states = {job.id: state(job, past) for job in self.plan.jobs}

    def _fill(self) -> None:
        """Start runs in all free slots."""
        for job in self.plan.jobs:
            if len(self.live) == len(self.places):
                return
            if self._ready(job):
                busy = [attempt.slot for attempt in self.live.values()]
                self._begin(job, next(s for s in self.places if not any(s is b for b in busy)))

    def _ready(self, job: Job) -> bool:
        """Whether a run can start now."""
        now = self.states[job.id]
        if job.id in self.tried or now in ENDED or now == "running":
            return False
        if now == "failed" and not self.retry_failed:
            return False
        # A diverged trunk leaves no checkpoint to branch from: the run starts from step 0.
        return job.after is None or self.states[job.after] in ENDED

    def _runs_elsewhere(self) -> bool:
        """Whether a process of an earlier planner, killed by SIGKILL, still trains a run.

        It ends soon by itself, and then the run is this planner's.
        """
        jobs = [job for job in self.plan.jobs if job.id not in self.live]
        others = [job for job in jobs if self.states[job.id] == "running"]
        if others:
            past = attempts(self.plan.home)
            self.states |= {job.id: state(job, past) for job in others}
        return bool(others)

    def _begin(self, job: Job, slot: Slot) -> None:
        """Start the process of a run, after its folder is prepared if it branches."""
        self.tried.add(job.id)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        if job.after and not self._prepared(job):
            return
        with job.log.open("ab") as log:
            log.write(f"--- {runlog.now()}, {slot.name}: {' '.join(job.words())}\n".encode())
            log.flush()
            process = slot.start(job, log)
        first, _ = progress(job)
        started, clock = runlog.now(), time.monotonic()
        self.live[job.id] = Attempt(job, slot, process, started, clock, first, step=first)
        self.watch.began(job, slot)

    def _prepared(self, job: Job) -> bool:
        """Prepare the folder of a run that branches; False if that failed, which is noted."""
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

    def _collect(self) -> None:
        """Write down which runs have ended, and look again."""
        over = [attempt for attempt in self.live.values() if attempt.process.poll() is not None]
        for attempt in over:
            job, code = attempt.job, attempt.process.returncode
            del self.live[job.id]
            seconds = time.monotonic() - attempt.clock
            lines = tail(job.log)[-LAST_LINES:]
            self.steps += max(0, progress(job)[0] - attempt.first_step)
            self.seconds += seconds
            note(job.home, job.id, attempt.started, exit_code(code, attempt), lines)
            self._refresh_plan()
            self.watch.ended(job, self.states.get(job.id, "failed"), lines, seconds)
        for attempt in self.live.values():
            attempt.step, attempt.loss = progress(attempt.job)

    def _stop(self) -> None:
        """Ask all runs to checkpoint and end."""
        self.stopping = True
        self.watch.say(
            f"stopping: {len(self.live)} runs write a checkpoint and end; the same command "
            "resumes them (stop again to kill them)"
        )
        for attempt in self.live.values():
            attempt.stop_requested = True
            attempt.process.terminate()

    def _kill(self) -> None:
        """End all runs now; their last checkpoints stay."""
        for attempt in self.live.values():
            attempt.process.kill()


def exit_code(code: int, attempt: Attempt) -> int:
    """The exit code of a run's process, or minus the signal that ended it.

    launch/node.py gives 128 + the signal. A failure after a stop request counts as -SIGTERM.
    """
    if code > 128:
        return 128 - code
    return -signal.SIGTERM if code > 0 and attempt.stop_requested else code


def _remaining(plan: Plan, states: Mapping[str, State]) -> int:
    """Updates still to be done; a run that waits for tuning counts with the last job's length."""
    total, length = 0, 0
    for job in plan.jobs:
        length = job.config.train.total_steps
        if states[job.id] not in (*ENDED, "failed"):
            total += length - progress(job)[0]
    return total + length * len(plan.pending)
