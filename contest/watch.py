"""What a person sees of a contest: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from contest.file import Setting
from contest.job import ENDED, Job, State, final_loss, progress
from contest.local import Attempt, Runner
from contest.plan import Plan
from contest.slots import Slot

STYLES: dict[State, str] = {
    "finished": "green",
    "diverged": "red",
    "failed": "bold red",
    "running": "cyan",
    "stopped": "yellow",
    "waiting": "dim",
    "queued": "blue",
}
MOST_COLUMNS = 8  # up to so many seeds have a column each; more share one, with counts
EVERY = 60.0  # s between lines about the progress


def duration(seconds: float | None) -> str:
    """In one or two units: 45 s, 12 min, 3 h 20 min, 2 d 5 h; "?" if it is not known."""
    if seconds is None:
        return "?"
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _seeds(seed: int, data_seed: int) -> str:
    """Both seeds, if they differ."""
    return str(seed) if seed == data_seed else f"{seed}, data {data_seed}"


def in_words(setting: Setting) -> str:
    """A setting, with four digits of its numbers."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in setting.items()
    )


def _title(job: Job) -> str:
    """The run in words."""
    setting = in_words(job.trial or {})
    kind = "" if job.role == "report" else f"{job.role} "
    steps = f" to update {job.length}" if job.role == "trunk" else ""
    seeds = _seeds(job.seed, job.data_seed)
    return f"{kind}{job.arm} seed {seeds}{steps}{f' ({setting})' if setting else ''}"


def _outcome(job: Job, now: State, lines: list[str]) -> str:
    """How a run ended, in words."""
    if now == "finished":
        loss = final_loss(job)
        if math.isfinite(loss):
            return f"finished, val loss {loss:.4f}"
        return "finished, but by its metrics it diverged: see diverged_reason in its summary.json"
    if now == "failed":
        last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        return f"failed: {last.strip()} ({job.log})"
    if now == "stopped":
        return f"stopped at update {progress(job)[0]}; the same command resumes it"
    return f"diverged at update {progress(job)[0]}" if now == "diverged" else now


def _counts(plan: Plan, states: Mapping[str, State]) -> str:
    """`7 of 9 runs done, 1 failed`."""
    total = len(plan.jobs) + len(plan.pending)
    done = sum(s in ENDED for s in states.values())
    others = ""
    for kind in ("running", "queued", "failed"):
        number = sum(s == kind for s in states.values())
        others += f", {number} {kind}" if number else ""
    return f"{done} of {total} runs done{others}"


def ending(plan: Plan, states: Mapping[str, State]) -> int:
    """Print how the contest stands; returns the exit code, 0 if every run has ended well."""
    missing = [job for job in plan.jobs if states[job.id] not in ENDED]
    failed = [job for job in missing if states[job.id] == "failed"]
    for problem in plan.problems:
        print(f"problem: {problem}", file=sys.stderr)
    for job in failed:
        print(f"failed: {_title(job)}, see {job.log}", file=sys.stderr)
    print(f"{_counts(plan, states)} in {plan.home}")
    if failed:
        print("--retry-failed runs the failed ones again", file=sys.stderr)
    if missing or plan.pending or plan.problems:
        return 1
    return 0


class Lines:
    """Plain lines, for a pipe or a log; a local.Watch."""

    def __init__(self, console: Console) -> None:
        self.console, self.clock = console, time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Print one line, with the time of day."""
        line = f"{datetime.now():%H:%M:%S}  {text}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def began(self, job: Job, slot: Slot) -> None:
        """A run's process was started."""
        self.say(f"began     {_title(job)} on {slot.name}: {job.id}")

    def ended(self, job: Job, now: State, lines: list[str], seconds: float) -> None:
        """It ended."""
        self.say(f"ended     {_title(job)} after {duration(seconds)}: {_outcome(job, now, lines)}")

    def tick(self, runner: Runner) -> None:
        """Print the progress once a minute."""
        if time.monotonic() - self.clock < EVERY:
            return
        self.clock = time.monotonic()
        live = runner.live.values()
        running = ", ".join(
            f"{a.job.arm} seed {_seeds(a.job.seed, a.job.data_seed)} at {_share(a)}" for a in live
        )
        self.say(f"{_summary(runner)}; {running}")


class Screen(Lines):
    """A table that is kept up to date, and lines about what went wrong."""

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
        """The table shows it; a line gives the reason if it did not end well."""
        if now not in ENDED:
            super().ended(job, now, lines, seconds)

    def tick(self, runner: Runner) -> None:
        """Draw the table twice a second."""
        if time.monotonic() - self.clock < 0.5:
            return
        self.clock = time.monotonic()
        self.draw(runner)

    def draw(self, runner: Runner) -> None:
        """The table as of now."""
        drawn = table(runner.plan, runner.states, runner.live)
        drawn.caption = _summary(runner)
        self.live.update(drawn, refresh=True)


def _summary(runner: Runner) -> str:
    """`7 of 9 runs done, 2 running, 12 min left`."""
    return f"{_counts(runner.plan, runner.states)}, {duration(runner.left())} left"


def _share(attempt: Attempt) -> str:
    """How far a run is, and its loss."""
    percent = 100 * attempt.step / attempt.job.total_steps
    return f"{percent:.0f} %" + (f" {attempt.loss:.3f}" if attempt.loss is not None else "")


def table(
    plan: Plan, states: Mapping[str, State], live: Mapping[str, Attempt] | None = None
) -> Table:
    """Arms x seeds; tuning runs and trunks are counted in their own columns."""
    live = live or {}
    name = f"contest {plan.contest.name}"
    shown = Table(title=name, title_justify="left", caption_justify="left")
    shown.add_column("arm")
    roles = [role for role in ("tuning", "trunk") if any(j.role == role for j in plan.jobs)]
    for role in roles:
        shown.add_column(role)
    number = len(plan.contest.seeds(plan.contest.arms[0]))
    if number > MOST_COLUMNS:
        shown.add_column("runs")
    for i in range(number if number <= MOST_COLUMNS else 0):
        shared = {plan.contest.seeds(arm)[i] for arm in plan.contest.arms}
        shown.add_column(f"seed {_seeds(*shared.pop())}" if len(shared) == 1 else f"run {i + 1}")
    for label in plan.arms:
        own = [job for job in plan.jobs if label in (job.arm, f"{job.arm}@{job.length}")]
        own += [job for job in plan.jobs if job.role == "tuning" and job.arm == label.split("@")[0]]
        cells = [_ratio([j for j in own if j.role == role], states, live) for role in roles]
        reports = [j for j in own if j.role == "report"]
        runs = [_cell(j, states[j.id], live.get(j.id)) for j in reports]
        if number > MOST_COLUMNS:
            runs = [_ratio(reports, states, live)]
        is_baseline = label.split("@")[0] == plan.contest.table.baseline  # at every length
        name = f"{label} (baseline)" if is_baseline else label
        shown.add_row(name, *cells, *runs)
    return shown


def _ratio(jobs: list[Job], states: Mapping[str, State], live: Mapping[str, Attempt]) -> Text:
    """`3/4` runs done, with those that are running or have failed."""
    jobs = list({job.id: job for job in jobs}.values())
    if not jobs:
        return Text("")
    done = sum(states[j.id] in ENDED for j in jobs)
    text = Text(f"{done}/{len(jobs)}", style="green" if done == len(jobs) else "")
    if running := [live[j.id] for j in jobs if j.id in live]:
        text.append("  " + ", ".join(_share(a) for a in running), style=STYLES["running"])
    if failed := sum(states[j.id] == "failed" for j in jobs):
        text.append(f"  {failed} failed", style=STYLES["failed"])
    return text


def _cell(job: Job, now: State, attempt: Attempt | None) -> Text:
    """One run."""
    if attempt:
        return Text(_share(attempt), style=STYLES["running"])
    if now == "finished":
        loss = final_loss(job)
        good = math.isfinite(loss)
        return Text(f"{loss:.4f}" if good else "diverged", STYLES[now if good else "diverged"])
    if now in ("stopped", "running"):
        step, _ = progress(job)
        return Text(f"{now} {100 * step / job.total_steps:.0f} %", style=STYLES[now])
    return Text(now, style=STYLES[now])


def show(plan: Plan, console: Console, states: Mapping[str, State]) -> None:
    """Print how a contest stands."""
    drawn = table(plan, states)
    drawn.caption = _counts(plan, states)
    console.print(drawn)
