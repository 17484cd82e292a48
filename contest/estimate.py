"""What a plan will cost: tokens, time and disk; the time from runs of the same size, or a probe."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from configs import Config, ConfigError, Model, load
from contest.job import ENDED, Job, progress, state
from contest.local import Slot
from contest.plan import Plan
from contest.watch import duration
from record import runlog

PROBE_STEPS = 5
PROBE_SECONDS = 120.0
QUICK = 1e12  # FLOPs of an update that a CPU does in about ten seconds
LINE_BYTES = 450  # of metrics.jsonl per update
WEIGHT_BYTES, STATE_BYTES = 4, 8  # per parameter, in a checkpoint: float32 and AdamW's moments
START_SECONDS = 8.0  # of a process, before and after its updates


@dataclass(frozen=True)
class Pace:
    """How long runs of one size take, and how that is known."""

    seconds_per_step: float
    overhead: float  # s per run: start, evaluations, end
    source: str


@dataclass(frozen=True)
class Cost:
    """Of some runs; the time is of those that are still to be done, on one slot."""

    runs: int
    tokens: int
    seconds: float | None
    disk: int  # bytes


def parameters(shape: Model) -> int:
    """Of the model: 124,439,808 for GPT-2 124M."""
    c, layers = shape.n_embd, shape.n_layer
    block = 12 * c * c + 13 * c
    return (shape.vocab_size + shape.block_size) * c + layers * block + 2 * c


def disk(config: Config) -> int:
    """Checkpoints (one more than are kept, while one is written) and metrics, bytes; at most, for
    an optimizer that keeps no more than AdamW.
    """
    one = parameters(config.model) * (WEIGHT_BYTES + STATE_BYTES)
    often = config.checkpoint.every and config.checkpoint.every < config.train.total_steps
    kept = config.checkpoint.keep + 1 if often else 1
    return one * kept + LINE_BYTES * config.train.total_steps


def size(config: Config) -> tuple[Any, ...]:
    """What the time of an update depends on most."""
    return config.model, config.train.batch_tokens, config.train.dtype


def recorded(out: Path) -> Iterator[tuple[Config, dict[str, Any], dict[str, Any]]]:
    """(configuration, summary, record) of all finished runs under a folder."""
    for path in out.glob(f"**/{runlog.SUMMARY}"):
        try:
            summary = runlog.read_summary(path.parent) or {}
            record = runlog.read_record(path.parent) or {}
            config = load([str(path.parent / runlog.CONFIG)])
        except (ConfigError, runlog.RecordError, OSError):
            continue  # of an older version, or somebody else's
        if summary.get("status") == "finished":
            yield config, summary, record


def paces(plan: Plan, out: Path) -> dict[tuple[Any, ...], Pace]:
    """By size, from finished runs under `out`."""
    wanted = {size(job.config) for job in plan.jobs}
    found: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for config, summary, record in recorded(out):
        key = size(config)
        launches = record.get("launches", [])
        if key not in wanted or len(launches) != 1 or not summary.get("steps"):
            continue  # of several launches the time between them is not known
        began, ended = (datetime.fromisoformat(launches[0][k]) for k in ("started", "ended"))
        wall = (ended - began).total_seconds()
        seconds = summary["train_seconds"]
        found.setdefault(key, []).append((seconds / summary["steps"], max(0.0, wall - seconds)))
    return {
        key: Pace(
            sum(step for step, _ in rows) / len(rows),
            sum(rest for _, rest in rows) / len(rows) + START_SECONDS / 2,  # imports, not recorded
            f"{len(rows)} finished runs of this size under {out}",
        )
        for key, rows in found.items()
    }


def probe(job: Job, slot: Slot) -> Pace:
    """Time a few updates of a real run. Raises ConfigError where that cannot be had."""
    with tempfile.TemporaryDirectory(prefix="probe-") as name:
        folder = Path(name)
        here = folder / job.directory.name
        words = [*job.arguments, "--log.wandb", "disabled"]
        trial = replace(job, arguments=words, directory=here, home=folder)
        output = folder / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                trial.command(slot.nproc), stdout=file, stderr=subprocess.STDOUT,
                env=os.environ | slot.environment, start_new_session=True,
            )  # fmt: skip
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
        steps = sorted(line["time/step_ms"] / 1e3 for line in lines if "train/loss" in line)
        evals = [line["time/eval_seconds"] for line in lines if "val/loss" in line]
        if not steps:
            said = output.read_text(errors="replace").strip().splitlines()
            raise ConfigError(f"no update of the probe ended within {PROBE_SECONDS:.0f} s; it "
                              f"said: {said[-1] if said else 'nothing'}")  # fmt: skip
    train, every = job.config.train, job.config.eval.every
    overhead = (1 + -(-train.total_steps // every)) * evals[0] + START_SECONDS
    return Pace(steps[len(steps) // 2], overhead, f"a probe of {len(steps)} updates")


def quick(config: Config, gpus: bool) -> bool:
    """Whether a probe is done in seconds, so that nobody need ask for it."""
    return gpus or 6 * parameters(config.model) * config.train.batch_tokens < QUICK


def pace_of(job: Job, known: Mapping[tuple[Any, ...], Pace]) -> Pace | None:
    """The pace of a run; of another batch with the same model, by its tokens."""
    config = job.config
    if size(config) in known:
        return known[size(config)]
    for (model, tokens, dtype), pace in known.items():
        if (model, dtype) == (config.model, config.train.dtype):
            scaled = pace.seconds_per_step * config.train.batch_tokens / tokens
            return replace(pace, seconds_per_step=scaled)
    return None


def cost(jobs: Sequence[Job], known: Mapping[tuple[Any, ...], Pace], waiting: int = 0) -> Cost:
    """Of runs, and of `waiting` more like the last of them, which the tuning will name.

    Time is of those that are not done; branches pay for their own updates only.
    """
    steps = {job.id: job.config.train.total_steps for job in jobs}
    points = {job.id: job.length or 0 for job in jobs if job.role == "trunk"}
    every = [*jobs, *[jobs[-1]] * waiting]
    tokens, seconds, size_on_disk = 0, 0.0, 0
    known_all = True
    for i, job in enumerate(every):
        config, pace = job.config, pace_of(job, known)
        own = steps[job.id] - points.get(job.after or "", 0)
        tokens += own * config.train.batch_tokens
        size_on_disk += disk(config)
        known_all &= pace is not None
        if pace and (i >= len(jobs) or state(job) not in ENDED):
            seconds += own * pace.seconds_per_step + pace.overhead
    return Cost(len(every), tokens, seconds if known_all else None, size_on_disk)


def table(plan: Plan, known: Mapping[tuple[Any, ...], Pace], places: int) -> Table:
    """The plan for people: a row for each arm, and the sum."""
    shown = Table(title=f"contest {plan.contest.name}", title_justify="left",
                  caption_justify="left", show_footer=True)  # fmt: skip
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
        ("disk", gigabytes(sum(c.disk for c in costs))),
    ]
    for i, (name, text) in enumerate(sums):
        shown.add_column(name, text, justify="left" if i < 3 else "right", overflow="fold")
    for label, role, seeds, c in rows:
        shown.add_row(label, role, seeds, str(c.runs), f"{c.tokens:,}", duration(c.seconds),
                      gigabytes(c.disk))  # fmt: skip
    return shown


def _row(
    plan: Plan,
    label: str,
    role: str,
    jobs: list[Job],
    known: Mapping[tuple[Any, ...], Pace],
    seeds: list[int],
) -> list[tuple[str, str, str, Cost]]:
    """One line of the table; runs that wait for the tuning are costed as its own are."""
    waiting = sum(run.arm == label for run in plan.pending) if role == "report" else 0
    base = label.partition("@")[0]
    like = jobs or ([j for j in plan.jobs if j.arm == base and j.role == "tuning"] or plan.jobs)[:1]
    if not jobs and not waiting:
        return []
    spent = cost(jobs, known, waiting) if jobs else cost(like, known, waiting - 1)
    named = sorted({j.seed for j in jobs}) or seeds
    text = f"{role} (after tuning)" if waiting else role
    return [(label, text, " ".join(map(str, named)), spent)]


def gigabytes(size_: int) -> str:
    """With a unit that fits."""
    return f"{size_ / 1e9:.1f} GB" if size_ >= 1e8 else f"{size_ / 1e6:.1f} MB"
