"""Several lengths for the price of one: runs that begin from the steps they share.

With a schedule such as WSD, runs of several lengths have the same learning rates until their
cool-down. So one trunk is trained at the constant rate, in segments that each begin from the end
of the one before, and every run branches from the segment that ends where its cool-down begins.

The trainer knows nothing of it. A folder is prepared before the trainer starts: the checkpoint
under the new run's name, metrics.jsonl as the new configuration would have written it so far, and
a record that says where it branched from. The trainer then resumes, and the run has the bits that
it would have had alone.

    python -m contest.branches SOURCE_FOLDER ARGUMENTS_OF_TRAIN_GPT2   # prepares one folder
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs import Config, ConfigError, load
from contest.file import Arm, Contest
from contest.job import Job, job, resolved, schedule_factors
from record import checkpoints, runlog
from record.metrics import StreamMetrics
from storage import write_atomically


@dataclass
class Start:
    """A reporting run, before it is known where it begins."""

    arm: Arm
    job: Job


def trunks(contest: Contest, home: Path, starts: list[Start]) -> list[Job]:
    """The segments of all trunks, in their order; the runs in `starts` get their `after`.

    Arms whose runs are equal until they leave the constant rate share a trunk. Raises ConfigError.
    """
    assert contest.table.branches
    points: dict[str, dict[int, list[Start]]] = {}  # trunk -> its branch points -> runs
    for start in starts:
        if start.arm.name in contest.table.branches.arms:
            trunk = resolved(tuple(trunk_arguments(contest, start, 1))).identity
            points.setdefault(trunk, {}).setdefault(branch_point(start.job), []).append(start)
    segments: list[Job] = []
    for branches in points.values():
        before: str | None = None
        for point in sorted(branches):
            first = branches[point][0]
            arguments = trunk_arguments(contest, first, point)
            segment = job(home, first.arm.name, "trunk", first.job.seed, arguments,
                          first.job.trial, length=point, after=before)  # fmt: skip
            segments.append(segment)
            before = segment.id
            for start in branches[point]:
                start.job = replace(start.job, after=segment.id)
    return segments


def trunk_arguments(contest: Contest, start: Start, steps: int) -> list[str]:
    """`steps` updates of the run at a constant rate after its warm-up."""
    constant = {
        "schedule.name": "constant",
        "schedule.warmup_steps": warmup(start.job),
        "train.total_steps": steps,
    }
    trial = start.job.trial or {}
    return contest.arguments(start.arm, start.job.seed, trial, constant, without="schedule.")


def warmup(run: Job) -> int:
    """Updates of the warm-up. Raises ConfigError where lengths would differ in it."""
    value = run.config.schedule.hyperparameters.get("warmup_steps", 0)
    if not isinstance(value, int):
        raise ConfigError(f"arm '{run.arm}': schedule.warmup_steps = {value} is a fraction, so "
                          "lengths share no trunk; give a number of updates")  # fmt: skip
    return value


def branch_point(run: Job) -> int:
    """How many updates have the learning rate of the trunk, bit for bit. Raises ConfigError."""
    own = schedule_factors(run.config)
    point = shared(own, schedule_factors(run.config, name="constant", warmup_steps=warmup(run)))
    if point <= warmup(run) + 1:  # the first update of a decay still has the full rate
        raise ConfigError(f"arm '{run.arm}': schedule '{run.config.schedule.name}' leaves the "
                          f"constant rate at update {point}, so it cannot branch from a trunk; "
                          "remove it from contest.branches.arms")  # fmt: skip
    return point


def shared(a: Sequence[float], b: Sequence[float]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y),
                min(len(a), len(b)))  # fmt: skip


def prepare(source: Path, config: Config) -> None:
    """Make the folder of the run `config` so that it resumes where the run in `source` ended.

    A folder that is there is left alone: it goes on by itself. Raises ConfigError where the run
    would not be what it had been alone.
    """
    directory = Path(config.log.dir) / config.run_name
    if directory.exists():
        return
    trunk = load([str(source / runlog.CONFIG)])
    check(trunk, config, source)
    step, total, every = trunk.train.total_steps, config.train.total_steps, config.eval.every
    checkpoint = checkpoints.newest_whole(source / "checkpoints")
    if not checkpoint or int(checkpoint.name[5:13]) != step:
        raise ConfigError(f"{source} has no checkpoint of its end, step {step}; remove the folder "
                          "to train it again")  # fmt: skip
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a planner that was killed
    partial.mkdir(parents=True)
    stream, evaluated, text = StreamMetrics(total), -1, b""
    for line in runlog.read_metrics(source):
        if "train/loss" in line:  # its spike score depends on the length of the run
            line |= stream.update(line["train/loss"], line["train/grad_norm"])
        elif line["step"] % every and line["step"] != total:
            continue  # the segment's own end
        else:
            evaluated = line["step"]
        text += runlog.encode(line) + b"\n"
    (partial / runlog.METRICS).write_bytes(text)
    saved = checkpoints.load(checkpoint)
    saved.run, saved.config = config.run_name, config.toml()
    saved.progress.evaluated, saved.progress.log_offset = evaluated, len(text)
    saved.progress.metrics = stream.state_dict()
    checkpoints.save(partial / "checkpoints", 1, saved)
    facts = runlog.read_record(source) or {}
    facts = {"hashes": facts["hashes"], "branched_from": {"run": source.name, "step": step}}
    write_atomically(partial / runlog.RECORD, json.dumps(facts, indent=1) + "\n")
    partial.rename(directory)


def check(trunk: Config, config: Config, source: Path) -> None:
    """Raise ConfigError unless the first updates of `config` are exactly those of `trunk`."""
    for key, value in comparable(config).items():
        if value != comparable(trunk)[key]:
            raise ConfigError(f"{source} differs in [{key}] from the run that would branch off")
    own, before = schedule_factors(config), schedule_factors(trunk)
    if shared(own, before) < len(before):
        raise ConfigError(f"{source} has another learning rate at update {shared(own, before)} "
                          f"than the run of {len(own)} updates that would branch off")  # fmt: skip


def comparable(config: Config) -> dict[str, Any]:
    """Everything that two runs with a common beginning have in common."""
    table = {k: v for k, v in config.table().items() if k not in ("schedule", "log", "checkpoint")}
    table["train"] = {k: v for k, v in table["train"].items() if k != "total_steps"}
    return table


def main(argv: Sequence[str]) -> int:
    """Prepare one folder; returns the exit code."""
    try:
        prepare(Path(argv[0]), resolved(tuple(argv[1:])))
    except (ConfigError, runlog.RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
