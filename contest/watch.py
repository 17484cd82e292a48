"""What a person sees of a contest: a live table on a terminal, plain lines in a pipe."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from contest.job import ENDED, Job, State, final_loss, progress
from contest.local import Attempt, Runner, Slot
from contest.plan import Plan

STYLES = {"finished": "green", "diverged": "red", "failed": "bold red", "running": "cyan",
          "stopped": "yellow", "waiting": "dim", "queued": "blue"}  # fmt: skip
MOST_COLUMNS = 8  # seeds with a column each; more are counted
EVERY = 60.0  # s between lines about how far it is, in a pipe


def duration(seconds: float | None) -> str:
    """In the two largest units that say enough: 45 s, 12 min, 3 h 20 min, 2 d 5 h."""
    if seconds is None:
        return "?"
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def title(job: Job) -> str:
    """The run in words."""
    setting = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in (job.trial or {}).items())  # fmt: skip
    kind = "" if job.role == "report" else f"{job.role} "
    steps = f" to update {job.length}" if job.role == "trunk" else ""
    return f"{kind}{job.arm} seed {job.seed}{steps}{f' ({setting})' if setting else ''}"


def outcome(job: Job, now: State, lines: list[str]) -> str:
    """How a run ended, in words."""
    if now == "finished":
        loss = final_loss(job)
        return (
            f"finished, val loss {loss:.4f}"
            if math.isfinite(loss)
            else (
                "finished, but by its metrics it diverged: see diverged_reason in its summary.json"
            )
        )
    said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    if now == "failed":
        return f"failed: {said.strip()} ({job.log})"
    if now == "stopped":
        return f"stopped at update {progress(job)[0]}; the same command goes on from there"
    return f"diverged at update {progress(job)[0]}" if now == "diverged" else now


def counts(plan: Plan, states: Mapping[str, State]) -> str:
    """`7 of 9 runs done, 1 failed`."""
    total = len(plan.jobs) + len(plan.pending)
    done = sum(s in ENDED for s in states.values())
    others = [f", {n} {kind}" for kind in ("running", "queued", "failed")
              if (n := sum(s == kind for s in states.values()))]  # fmt: skip
    return f"{done} of {total} runs done{''.join(others)}"


class Lines:
    """Plain lines, for a pipe or a log."""

    def __init__(self, console: Console) -> None:
        self.console, self.clock = console, time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """One line with the time of day."""
        line = f"{datetime.now():%H:%M:%S}  {text}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def began(self, job: Job, slot: Slot) -> None:
        """A run's process was started."""
        self.say(f"began     {title(job)} on {slot.name}: {job.id}")

    def ended(self, job: Job, now: State, lines: list[str], seconds: float) -> None:
        """It ended."""
        self.say(f"ended     {title(job)} after {duration(seconds)}: {outcome(job, now, lines)}")

    def tick(self, runner: Runner) -> None:
        """A line now and then."""
        if time.monotonic() - self.clock < EVERY:
            return
        self.clock = time.monotonic()
        running = ", ".join(f"{a.job.arm} seed {a.job.seed} at {share(a)}"
                            for a in runner.live.values())  # fmt: skip
        self.say(f"{counts(runner.plan, runner.states)}, {duration(runner.left())} left; {running}")


class Screen(Lines):
    """The same, and a table that is kept up to date."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Screen:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def began(self, job: Job, slot: Slot) -> None:
        """The table shows it."""

    def ended(self, job: Job, now: State, lines: list[str], seconds: float) -> None:
        """The table shows it, but not the reason."""
        if now not in ENDED:
            super().ended(job, now, lines, seconds)

    def tick(self, runner: Runner) -> None:
        """Draw the table again."""
        if time.monotonic() - self.clock < 0.5:
            return
        self.clock = time.monotonic()
        self.draw(runner)

    def draw(self, runner: Runner) -> None:
        """The table as of now."""
        drawn = table(runner.plan, runner.states, runner.live)
        drawn.caption = f"{counts(runner.plan, runner.states)}, {duration(runner.left())} left"
        self.live.update(drawn, refresh=True)


def share(attempt: Attempt) -> str:
    """How far a run is, and its loss."""
    percent = 100 * attempt.step / attempt.job.total_steps
    return f"{percent:.0f} %" + (f" {attempt.loss:.3f}" if attempt.loss is not None else "")


def table(
    plan: Plan, states: Mapping[str, State], live: Mapping[str, Attempt] | None = None
) -> Table:
    """Arms x seeds; tuning and trunks are counted in columns of their own."""
    live = live or {}
    shown = Table(title=f"contest {plan.contest.name}", title_justify="left",
                  caption_justify="left")  # fmt: skip
    shown.add_column("arm")
    roles = [role for role in ("tuning", "trunk") if any(j.role == role for j in plan.jobs)]
    for role in roles:
        shown.add_column(role)
    number = len(plan.contest.table.seeds)
    if number > MOST_COLUMNS:
        shown.add_column("runs")
    for i in range(number if number <= MOST_COLUMNS else 0):
        shared = {arm.seeds[i] for arm in plan.contest.arms}
        shown.add_column(f"seed {shared.pop()}" if len(shared) == 1 else f"run {i + 1}")
    for label in plan.arms:
        own = [job for job in plan.jobs if label in (job.arm, f"{job.arm}@{job.length}")]
        own += [job for job in plan.jobs if job.role == "tuning" and job.arm == label.split("@")[0]]
        cells = [ratio([j for j in own if j.role == role], states, live) for role in roles]
        reports = [j for j in own if j.role == "report"]
        runs = [cell(j, states[j.id], live.get(j.id)) for j in reports]
        if number > MOST_COLUMNS:
            runs = [ratio(reports, states, live)]
        name = f"{label} (baseline)" if label == plan.baseline else label
        shown.add_row(name, *cells, *runs)
    return shown


def ratio(jobs: list[Job], states: Mapping[str, State], live: Mapping[str, Attempt]) -> Text:
    """`3/4` runs done, with those that go on or went wrong."""
    jobs = list({job.id: job for job in jobs}.values())
    if not jobs:
        return Text("")
    done = sum(states[j.id] in ENDED for j in jobs)
    text = Text(f"{done}/{len(jobs)}", style="green" if done == len(jobs) else "")
    if going := [live[j.id] for j in jobs if j.id in live]:
        text.append("  " + ", ".join(share(a) for a in going), style=STYLES["running"])
    if failed := sum(states[j.id] == "failed" for j in jobs):
        text.append(f"  {failed} failed", style=STYLES["failed"])
    return text


def cell(job: Job, now: State, attempt: Attempt | None) -> Text:
    """One run."""
    if attempt:
        return Text(share(attempt), style=STYLES["running"])
    if now == "finished":
        loss = final_loss(job)
        good = math.isfinite(loss)
        return Text(f"{loss:.4f}" if good else "diverged", STYLES[now if good else "diverged"])
    if now in ("stopped", "running"):
        step, _ = progress(job)
        return Text(f"{now} {100 * step / job.total_steps:.0f} %", style=STYLES[now])
    return Text(now, style=STYLES[now])


def show(plan: Plan, console: Console, states: Mapping[str, State]) -> None:
    """The state of a contest."""
    drawn = table(plan, states)
    drawn.caption = counts(plan, states)
    console.print(drawn)
