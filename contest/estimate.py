"""What a plan will cost in tokens, time and disk: `--dry-run`.

The time comes from finished runs of the same size, or from a probe: a few updates of a real run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from configs import Config, ConfigError, load
from configs.size import parameters
from contest import tuning
from contest.job import ENDED, Job, progress, state
from contest.plan import Plan, check_data
from contest.seeds import planned_seeds
from contest.slots import Slot
from contest.watch import duration
from record import runlog

PROBE_STEPS = 5
PROBE_SECONDS = 120.0
QUICK = 1e12  # FLOPs of an update that takes a CPU about ten seconds
LINE_BYTES = 450  # of metrics.jsonl per update
WEIGHT_BYTES, STATE_BYTES = 4, 8  # per parameter, in a checkpoint: float32 and AdamW's moments
START_SECONDS = 8.0  # of a process, before and after its updates


@dataclass(frozen=True)
class Pace:
    """How long runs of one size take, and where that comes from."""

    seconds_per_step: float
    overhead: float  # s per run: start, evaluations, end
    source: str


@dataclass(frozen=True)
class Cost:
    """The cost of some runs; the time is for those that are still to be done, on one slot."""

    runs: int
    tokens: int
    seconds: float | None
    disk: int  # bytes


def _disk(config: Config) -> int:
    """Bytes of checkpoints and metrics at most, for an optimizer that keeps no more than AdamW.

    While a checkpoint is written there is one more than are kept.
    """
    one = parameters(config.model) * (WEIGHT_BYTES + STATE_BYTES)
    often = config.checkpoint.every and config.checkpoint.every < config.train.total_steps
    kept = config.checkpoint.keep + 1 if often else 1
    return one * kept + LINE_BYTES * config.train.total_steps


def _size(config: Config) -> tuple[Any, ...]:
    """What the time of an update depends on most."""
    return config.model, config.train.batch_tokens, config.train.dtype


def _recorded(out: Path) -> Iterator[tuple[Config, dict[str, Any], dict[str, Any]]]:
    """(configuration, summary, record) of all finished runs under a folder."""
    for path in out.glob(f"**/{runlog.SUMMARY}"):
        try:
            summary = runlog.read_summary(path.parent) or {}
            record = runlog.read_record(path.parent) or {}
            config = load([str(path.parent / runlog.CONFIG)])
        except (ConfigError, runlog.RecordError, OSError):
            continue  # written by an older version, or by another program
        if summary.get("status") == "finished":
            yield config, summary, record


def paces(plan: Plan, out: Path) -> dict[tuple[Any, ...], Pace]:
    """Paces by size, from finished runs under `out`."""
    wanted = {_size(job.config) for job in plan.jobs}
    found: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for config, summary, record in _recorded(out):
        key = _size(config)
        launches = record.get("launches", [])
        if key not in wanted or len(launches) != 1 or not summary.get("steps"):
            continue  # the time between several launches is not known
        began, ended = (datetime.fromisoformat(launches[0][k]) for k in ("started", "ended"))
        wall = (ended - began).total_seconds()
        seconds = summary["train_seconds"]
        found.setdefault(key, []).append((seconds / summary["steps"], max(0.0, wall - seconds)))
    return {
        key: Pace(
            fmean(step for step, _ in rows),
            fmean(rest for _, rest in rows) + START_SECONDS / 2,  # imports, not recorded
            f"{len(rows)} finished runs of this size under {out}",
        )
        for key, rows in found.items()
    }


def _probe(job: Job, slot: Slot) -> Pace:
    """Time a few updates of a real run.

    Raises:
        ConfigError: no update ended in time.
    """
    with tempfile.TemporaryDirectory(prefix="probe-") as name:
        folder = Path(name)
        here = folder / job.directory.name
        words = [*job.arguments, "--log.wandb", "disabled"]
        trial = replace(job, arguments=words, directory=here, home=folder)
        output = folder / "output"
        with output.open("wb") as file:
            process = slot.start(trial, file)
        deadline = time.monotonic() + PROBE_SECONDS
        try:
            while process.poll() is None and progress(trial)[0] < PROBE_STEPS:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
        finally:
            process.terminate()
            process.wait()
        lines = runlog.read_metrics(here)
        steps = [line["time/step_ms"] / 1e3 for line in lines if "train/loss" in line]
        evals = [line["time/eval_seconds"] for line in lines if "val/loss" in line]
        if not steps:
            printed = output.read_text(errors="replace").strip().splitlines()
            last = printed[-1] if printed else "nothing"
            limit = f"{PROBE_SECONDS:.0f} s"
            raise ConfigError(f"no update of the probe ended within {limit}; it printed: {last}")
    train, every = job.config.train, job.config.eval.every
    overhead = (1 + -(-train.total_steps // every)) * evals[0] + START_SECONDS
    return Pace(median(steps), overhead, f"a probe of {len(steps)} updates")


def _is_quick(config: Config, gpus: bool) -> bool:
    """Whether a probe takes only seconds, so that it needs no --probe."""
    return gpus or 6 * parameters(config.model) * config.train.batch_tokens < QUICK


def _pace_of(job: Job, known: Mapping[tuple[Any, ...], Pace]) -> Pace | None:
    """The pace of a run; from another batch of the same model, in proportion to its tokens."""
    config = job.config
    if _size(config) in known:
        return known[_size(config)]
    for (model, tokens, dtype), pace in known.items():
        if (model, dtype) == (config.model, config.train.dtype):
            scaled = pace.seconds_per_step * config.train.batch_tokens / tokens
            return replace(pace, seconds_per_step=scaled)
    return None


def _cost(
    plan: Plan,
    jobs: Sequence[Job],
    known: Mapping[tuple[Any, ...], Pace],
    waiting: Sequence[Job] = (),
) -> Cost:
    """The cost of runs, and of more that wait for the tuning: `waiting` has a run like each.

    The time is for runs that are not done. A branch counts its own updates only.
    """
    points = {job.id: job.length or 0 for job in plan.jobs if job.role == "trunk"}
    every = [*jobs, *waiting]
    tokens, seconds, size_on_disk = 0, 0.0, 0
    known_all = True
    for i, job in enumerate(every):
        config, pace = job.config, _pace_of(job, known)
        own = config.train.total_steps - points.get(job.after or "", 0)
        tokens += own * config.train.batch_tokens
        size_on_disk += _disk(config)
        known_all &= pace is not None
        if pace and (i >= len(jobs) or state(job) not in ENDED):
            seconds += own * pace.seconds_per_step + pace.overhead
    return Cost(len(every), tokens, seconds if known_all else None, size_on_disk)


def show(
    plan: Plan, out: Path, places: Sequence[Slot], console: Console, *, gpus: bool, probe: bool
) -> None:
    """Print the plan and its cost; writes nothing.

    out: where finished runs are looked for. probe: time a few updates, however long they take.
    """
    known = paces(plan, out)
    first = plan.jobs[0]
    source = f"not known: no finished run of this size lies under {out}; try --probe"
    if not known and (probe or _is_quick(first.config, gpus)):
        try:
            check_data(plan)
            known = {_size(first.config): _probe(first, places[0])}
        except ConfigError as error:
            source = f"not known: {error}"
    if known:
        source = f"from {next(iter(known.values())).source}"
    shown = _table(plan, known, len(places))
    shown.caption = f"time: {source}; {len(places)} runs at once"
    on_gpus = [place.name for place in places if place.name.startswith("GPU")]
    if len(set(on_gpus)) < len(on_gpus):
        shown.caption += ", which share GPUs: each takes longer than a run alone"
    console.print(shown)
    console.print(planned_seeds(plan), highlight=False, markup=False, soft_wrap=True)
    for line in _on_top(plan, known, len(places)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for job in plan.jobs:
        print(f"{state(job):9} {job.role:7} {job.arm:12} {' '.join(job.arguments)}")


def _on_top(plan: Plan, known: Mapping[tuple[Any, ...], Pace], places: int) -> Iterator[str]:
    """What tuning may add to the plan when its losses are known, at most."""
    like = [job for job in plan.jobs if job.role == "tuning"][:1]
    for reason, runs in tuning.most_to_come(plan.contest, plan.tuned).items():
        cost = _cost(plan, [], known, like * runs)
        seconds = cost.seconds / places if cost.seconds is not None else None
        time_ = f"{duration(seconds)} on {places}" if seconds is not None else "?"
        yield f"may come on top: up to {runs} tuning runs, {time_} ({reason})"


def _table(plan: Plan, known: Mapping[tuple[Any, ...], Pace], places: int) -> Table:
    """The plan for people: a row for each arm, and the sum."""
    name = f"contest {plan.contest.name}"
    shown = Table(title=name, title_justify="left", caption_justify="left", show_footer=True)
    rows: list[tuple[str, str, str, Cost]] = []
    for label in plan.arms:
        arm = next(a for a in plan.contest.arms if a.name == label.partition("@")[0])
        for role in ("tuning", "trunk", "report"):
            jobs = [j for j in plan.jobs if j.role == role and j.arm == label]
            rows += _row(plan, label, role, jobs, known, list(arm.seeds))
    for role in ("tuning", "trunk"):  # of arms that have several lengths
        jobs = [j for j in plan.jobs if j.role == role and j.arm not in plan.arms]
        for label in dict.fromkeys(j.arm for j in jobs):
            rows += _row(plan, label, role, [j for j in jobs if j.arm == label], known, [])
    costs = [row[3] for row in rows]
    seconds = [c.seconds for c in costs if c.seconds is not None]
    total = sum(seconds) / places if len(seconds) == len(costs) else None
    sums = [
        ("arm", "total"),
        ("role", ""),
        ("seeds", ""),
        ("runs", str(sum(c.runs for c in costs))),
        ("tokens", f"{sum(c.tokens for c in costs):,}"),
        ("time", f"{duration(total)} on {places}" if total is not None else "?"),
        ("disk", decimal(sum(c.disk for c in costs))),
    ]
    for i, (name, text) in enumerate(sums):
        shown.add_column(name, text, justify="left" if i < 3 else "right", overflow="fold")
    for label, role, seeds, c in rows:
        numbers = (str(c.runs), f"{c.tokens:,}", duration(c.seconds), decimal(c.disk))
        shown.add_row(label, role, seeds, *numbers)
    return shown


def _row(
    plan: Plan,
    label: str,
    role: str,
    jobs: list[Job],
    known: Mapping[tuple[Any, ...], Pace],
    seeds: list[int],
) -> list[tuple[str, str, str, Cost]]:
    """One line of the table; runs that wait for the tuning cost as much as its runs."""
    waiting = sum(run.arm == label for run in plan.pending) if role == "report" else 0
    base = label.partition("@")[0]
    if not jobs and not waiting:
        return []
    like = jobs or [j for j in plan.jobs if j.arm == base and j.role == "tuning"] or plan.jobs
    spent = _cost(plan, jobs, known, like[:1] * waiting)
    named = sorted({j.seed for j in jobs}) or seeds
    text = f"{role} (after tuning)" if waiting else role
    return [(label, text, " ".join(map(str, named)), spent)]
