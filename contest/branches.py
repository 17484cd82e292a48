"""Several lengths for the price of one: runs that start from the updates they share.

With a schedule such as WSD, runs of several lengths have the same learning rates until their
cool-down. So one trunk is trained at the constant rate, in segments that each start from the end
of the one before. Every run branches from the segment that ends where its cool-down begins.

The trainer does not know about branches. A folder is prepared before it starts: the checkpoint
under the new run's name, metrics.jsonl as the new configuration would have written it so far, and
a record of where the run branched. The trainer then resumes, and the run has the same bits as if it
had been trained alone.

    python -m contest.branches SOURCE_FOLDER ARGUMENTS_OF_TRAIN_GPT2   # prepares one folder
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs import Config, ConfigError, load
from configs.loading import flat
from configs.schema import OUTSIDE
from contest.file import Arm, Contest
from contest.job import Job, job, resolved, schedule_factors
from record import checkpoints, runlog
from record.metrics import StreamMetrics
from storage import write_json


@dataclass
class Start:
    """A reporting run, before it is known where it starts."""

    arm: Arm
    job: Job


def trunks(contest: Contest, home: Path, starts: list[Start]) -> list[Job]:
    """The segments of all trunks, in their order; sets `after` of the runs in `starts`.

    Arms whose runs are equal until they leave the constant rate share a trunk.

    Raises:
        ConfigError: a run cannot branch from a trunk.
    """
    assert contest.table.branches
    points: dict[str, dict[int, list[Start]]] = {}  # trunk -> its branch points -> runs
    for start in starts:
        if start.arm.name in contest.table.branches.arms:
            trunk = resolved(tuple(_trunk_arguments(contest, start, 1))).identity
            points.setdefault(trunk, {}).setdefault(_branch_point(start.job), []).append(start)
    segments: list[Job] = []
    for branches in points.values():
        before: str | None = None
        for point in sorted(branches):
            first = branches[point][0]
            arguments = _trunk_arguments(contest, first, point)
            segment = job(
                home,
                first.arm.name,
                "trunk",
                (first.job.seed, first.job.data_seed),
                arguments,
                first.job.trial,
                length=point,
                after=before,
            )
            segments.append(segment)
            before = segment.id
            for start in branches[point]:
                _check_optimizer(start.job, segment)
                start.job = replace(start.job, after=segment.id)
    return segments


def _trunk_arguments(contest: Contest, start: Start, steps: int) -> list[str]:
    """`steps` updates of the run at a constant rate after its warm-up."""
    constant = {
        "schedule.name": "constant",
        "schedule.warmup_steps": _warmup(start.job),
        "train.total_steps": steps,
    }
    trial = start.job.trial or {}
    seeds = start.job.seed, start.job.data_seed
    return contest.arguments(start.arm, seeds, trial, constant, without="schedule.")


def _warmup(run: Job) -> int:
    """Updates of the warm-up.

    Raises:
        ConfigError: it is a fraction of the run, so it differs between lengths.
    """
    value = run.config.schedule.hyperparameters.get("warmup_steps", 0)
    if not isinstance(value, int):
        problem = f"arm '{run.arm}': schedule.warmup_steps = {value} is a fraction"
        raise ConfigError(f"{problem}, so lengths share no trunk; give a number of updates")
    return value


def _check_optimizer(run: Job, segment: Job) -> None:
    """Check that the trunk's optimizer is that of the run, whatever their lengths.

    Raises:
        ConfigError: a hyperparameter is a fraction of the run, or longer than the trunk.
    """
    import optim  # imports torch

    try:
        own, trunk = (_updates(optim.counted_in_updates(job.config)) for job in (run, segment))
    except ConfigError as error:
        raise ConfigError(f"arm '{run.arm}': on the way to a branch {error}") from None
    for key, value in own.items():
        if value != trunk[key]:
            given = flat(run.config.table()["optimizer"])[key]
            problem = f"arm '{run.arm}': optimizer.{key} = {given} is a fraction of the run"
            raise ConfigError(f"{problem}, so lengths share no trunk; give a number of updates")


def _updates(counted: tuple[Mapping[str, Any], Mapping[str, Any]]) -> dict[str, Any]:
    values, roles = counted
    return flat({**values, "roles": roles})


def _branch_point(run: Job) -> int:
    """How many updates have the learning rate of the trunk, bit for bit.

    Raises:
        ConfigError: the schedule leaves the constant rate at once.
    """
    if roles := run.config.schedule.roles:
        problem = f"arm '{run.arm}': schedule.roles.{next(iter(roles))} is a second schedule"
        remedy = "remove it from contest.branches.arms"
        raise ConfigError(f"{problem}, so the run cannot branch from a trunk; {remedy}")
    own, warmup = schedule_factors(run.config), _warmup(run)
    point = _shared(own, schedule_factors(run.config, name="constant", warmup_steps=warmup))
    if point <= warmup + 1:  # the first update of a decay still has the full rate
        problem = f"schedule '{run.config.schedule.name}' leaves the constant rate at update "
        problem += f"{point}, so it cannot branch from a trunk"
        remedy = "remove it from contest.branches.arms"
        raise ConfigError(f"arm '{run.arm}': {problem}; {remedy}")
    return point


def _shared(a: Sequence[float], b: Sequence[float]) -> int:
    """Length of the common beginning."""
    shorter = min(len(a), len(b))
    return next((i for i in range(shorter) if a[i] != b[i]), shorter)


def prepare(source: Path, config: Config) -> None:
    """Make the folder of the run `config`, so that it resumes where the run in `source` ended.

    A folder that exists is left alone, since its run resumes by itself.

    Raises:
        ConfigError: the run would not have the bits that it has alone.
        RecordError: the record in `source` is damaged.
    """
    directory = Path(config.log.dir) / config.run_name
    if directory.exists():
        return
    trunk = load([str(source / runlog.CONFIG)])
    _check(trunk, config, source)
    step, total, every = trunk.train.total_steps, config.train.total_steps, config.eval.every
    checkpoint = checkpoints.newest_whole(source / "checkpoints")
    if not checkpoint or checkpoints.step_of(checkpoint) != step:
        problem = f"{source} has no checkpoint of its end, step {step}"
        raise ConfigError(f"{problem}; remove the folder to train it again")
    record = runlog.read_record(source) or {}
    hashes = record.get("hashes")
    if not hashes:
        problem = f"{source} has no {runlog.RECORD} with hashes"
        raise ConfigError(f"{problem}; remove the folder to train it again")
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a planner that was killed
    partial.mkdir(parents=True)
    stream, evaluated, text = StreamMetrics(total), -1, bytearray()
    for line in runlog.read_metrics(source):
        if "train/loss" in line:  # the spike score depends on the length of the run
            line |= stream.update(line["train/loss"], line["train/grad_norm"])
        elif line["step"] % every and line["step"] != total:
            continue  # the evaluation at the segment's own end
        else:
            evaluated = line["step"]
            line.pop("test/loss", None)  # of the segment's own end
        text += runlog.encode(line) + b"\n"
    (partial / runlog.METRICS).write_bytes(text)
    saved = checkpoints.load(checkpoint)
    saved.run, saved.config = config.run_name, config.toml()
    saved.progress.evaluated, saved.progress.log_offset = evaluated, len(text)
    saved.progress.metrics = stream.state_dict()
    checkpoints.save(partial / "checkpoints", 1, saved)
    ran = record.get("launches", [{}])[-1].get("environment", {})
    hardware = {key: ran[key] for key in ("device", "dtype") if key in ran}
    branched = {"run": source.name, "step": step, **hardware}
    facts = {"hashes": hashes, "branched_from": branched}
    write_json(partial / runlog.RECORD, facts)
    partial.rename(directory)


def _check(trunk: Config, config: Config, source: Path) -> None:
    """Check that the first updates of `config` are exactly those of `trunk`.

    Raises:
        ConfigError: they differ.
    """
    for key, value in _shared_settings(config).items():
        if value != _shared_settings(trunk)[key]:
            raise ConfigError(f"{source} differs in [{key}] from the run that would branch off")
    own, before = schedule_factors(config), schedule_factors(trunk)
    if (point := _shared(own, before)) < len(before):
        problem = f"{source} has another learning rate at update {point}"
        raise ConfigError(f"{problem} than the run of {len(own)} updates that would branch off")


def _shared_settings(config: Config) -> dict[str, Any]:
    """The settings that two runs with a common beginning must share."""
    table = config.decisive((*OUTSIDE, "schedule", "train.total_steps"))
    return table | {"versions": config.versions.get(config.optimizer.name)}


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
