"""Step times that can be compared: `python -m contest X.toml --timing`.

The runs of a contest share their machine, or meet it at different times. So some updates of each
arm are run alone, one arm after the other, in several rounds that each begin with another arm: what
slows the machine for a while then slows all arms. timing.json has the result, for the report.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from configs import ConfigError
from contest.attempts import tail
from contest.file import Arm, Contest, Setting
from contest.job import Job, build, job
from contest.plan import Plan
from contest.slots import Slot
from record import runlog
from record.contest import TimedArm, Timing
from record.machine import machine_now

ROUNDS = 3
UPDATES = 25  # that count: an optimizer's work may be dear in one of ten
WARM_UP = 5  # before them


def measure(plan: Plan, slot: Slot, say: Callable[[str], None]) -> Timing:
    """Time all arms of a contest.

    slot: where each run goes. say: is told each time.

    Raises:
        ConfigError: a run ended without its updates; the line has its last words.
    """
    settings = {arm.name: _setting(plan, arm) for arm in plan.contest.arms}
    times: dict[str, list[float]] = {name: [] for name in settings}
    states = []
    for number in range(ROUNDS):
        states.append(machine_now())
        arms = plan.contest.arms
        first = number % len(arms)
        for arm in (*arms[first:], *arms[:first]):
            ms = _step_ms(plan.contest, arm, settings[arm.name], slot)
            times[arm.name].append(ms)
            say(f"round {number + 1} of {ROUNDS}  {arm.name}: {ms:.4g} ms per update")
    return Timing(
        contest=plan.contest.name,
        measured=runlog.now(),
        host=socket.gethostname(),
        place=slot.name,
        updates=UPDATES,
        machine=(*states, machine_now()),
        arms={name: TimedArm(step_ms=tuple(times[name]), setting=settings[name]) for name in times},
    )


def _setting(plan: Plan, arm: Arm) -> Setting | None:
    """The setting that an arm reports with; None, its own, before its tuning has ended."""
    tuned = plan.tuned.get(arm.name)
    return tuned.best if tuned and tuned.settled else None


def _step_ms(contest: Contest, arm: Arm, setting: Setting | None, slot: Slot) -> float:
    """Mean time of an update of one arm, ms."""
    with tempfile.TemporaryDirectory(prefix="timing-") as name:
        run = _job(contest, arm, setting, Path(name), max(1, slot.nproc))
        output = Path(name) / "output"
        with output.open("wb") as file:
            process = slot.start(run, file)
            try:
                process.wait()
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        lines = runlog.read_metrics(run.directory)
        steps = [line["time/step_ms"] for line in lines if "train/loss" in line]
        if len(steps) < WARM_UP + UPDATES:
            said = [line for line in tail(output) if line.strip()] or ["it printed nothing"]
            problem = f"arm '{arm.name}': {len(steps)} of {WARM_UP + UPDATES} updates were done"
            raise ConfigError(f"{problem}; {said[-1].strip()}")
    return fmean(steps[WARM_UP:])


def _job(contest: Contest, arm: Arm, setting: Setting | None, home: Path, ranks: int) -> Job:
    """A short run at a rising rate, since the schedule may be longer, with small evaluations."""
    seeds = contest.seeds(arm)[0]
    usual = build(contest, home, arm, seeds, "report", setting)
    total, shape = WARM_UP + UPDATES, usual.config.model
    short = {
        "schedule.name": "constant",
        "schedule.warmup_steps": total,
        "train.total_steps": total,
        "eval.every": total,
        "eval.tokens": min(usual.config.eval.tokens, shape.block_size * ranks),
        "checkpoint.every": 0,
        "log.wandb": "disabled",
    }
    words = contest.arguments(arm, seeds, setting or {}, short, without="schedule.")
    return job(home, arm.name, "report", seeds, words, setting)
