"""A run's folder as a Run. Reading never fails: the run's `problems` say what is wrong.

The folder is what the trainer leaves (docs/record.md): config.toml, record.json, metrics.jsonl and,
after the end, summary.json.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from record import inside, runlog, sequences, sharpness
from record.contest import PlanFile, PlannedRun, contest_and_role
from record.metrics import is_outdated, summarize
from report.run import Columns, Run, Status, check_lines, columns, default_arm, value_at
from storage import is_locked

RUN_FILES = (runlog.METRICS, runlog.RECORD, runlog.SUMMARY)  # any of them makes a folder a run


@dataclass(frozen=True)
class Place:
    """Where a run lies, and what its contest says of it: the contest's name, the plan's entry."""

    folder: Path
    contest: str | None = None
    planned: PlannedRun | None = None


def holds_run(folder: Path) -> bool:
    """Whether a run has begun in `folder`."""
    return any((folder / name).exists() for name in RUN_FILES)


def read_run(place: Place) -> Run:
    """One run's folder, also an empty or damaged one."""
    folder, problems = place.folder, list[str]()
    config = _read_config(folder, problems)
    facts = read_object(folder / runlog.RECORD, problems) or {}
    summary = read_object(folder / runlog.SUMMARY, problems, optional=True)
    records = _read_lines(folder / runlog.METRICS, problems)
    train, val = columns(records, problems)
    group, role = contest_and_role(str(value_at(config, "log.group") or ""))
    planned = place.planned
    role = planned.role if planned else role
    seed, data_seed = (_seed(key, planned, config, problems) for key in ("seed", "data_seed"))
    status = _status(folder, summary, facts, problems)
    if status != "missing":
        summary = _numbers(summary, records, config, val, problems)
        problems += check_lines(train, val, config, status)
    ended = status == "finished"
    losses = _sequences(folder, summary or {}, problems) if ended else {}
    measured = _sharpness(folder, problems)
    return Run(
        name=folder.name,
        source=str(folder),
        arm=planned.arm if planned else _arm(config, folder),
        role=role,
        contest=place.contest or group or None,
        seed=seed,
        data_seed=data_seed,
        config=config,
        train=train,
        val=val,
        summary=summary or {},
        hashes={k: v for k, v in (facts.get("hashes") or {}).items() if isinstance(v, str)},
        facts=facts,
        status=status,
        problems=tuple(problems),
        length=planned.length if planned else None,
        planned=planned is not None,
        inside=inside.read(folder) if role == "report" else None,
        sequences=losses,
        sharpness=measured,
    )


def _arm(config: Mapping[str, Any], folder: Path) -> str:
    """The arm of a run without a plan."""
    return str(value_at(config, "log.job_type") or default_arm(config) or folder.name)


def _seed(
    key: str, planned: PlannedRun | None, config: Mapping[str, Any], problems: list[str]
) -> int:
    """`seed` or `data_seed`: from the configuration, else from the plan, else 1."""
    seed = getattr(planned, key) if planned else config.get(key, 1)
    if key in config and config[key] != seed:
        problems.append(
            f"{key} is {seed} in {PlanFile.file_name} but {config[key]} in its own "
            f"{runlog.CONFIG}, which counts"
        )
        return config[key]
    return seed


# ------------------------------------------------------------------------------------------- files


def _sequences(
    folder: Path, summary: Mapping[str, Any], problems: list[str]
) -> dict[str, NDArray[np.float32]]:
    """The losses of each split's sequences; those that contradict the summary are left out."""
    try:
        found = sequences.read(folder)
    except runlog.RecordError as error:
        problems.append(str(error))
        return {}
    kept = {}
    for split, losses in found.items():
        final = summary.get(f"final_{split}_loss")
        if final is not None and np.isclose(losses.mean(dtype=float), final, rtol=1e-6, atol=0):
            kept[split] = losses
        else:
            problems.append(f"{sequences.FILE}: {split} contradicts its final loss and is left out")
    return kept


def _sharpness(folder: Path, problems: list[str]) -> tuple[sharpness.Sharpness, ...]:
    """What was measured at its checkpoints; () with a problem if that is damaged."""
    try:
        return sharpness.read(folder)
    except runlog.RecordError as error:
        problems.append(str(error))
        return ()


def _read_config(folder: Path, problems: list[str]) -> dict[str, Any]:
    """config.toml as nested dicts; {} with a problem if it is absent or damaged."""
    path = folder / runlog.CONFIG
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if folder.exists():
            problems.append(f"no {runlog.CONFIG}: arm, seeds and length are guessed")
    except (OSError, ValueError) as error:
        problems.append(f"{runlog.CONFIG} is damaged ({error}): arm, seeds and length are guessed")
    return {}


def read_object(path: Path, problems: list[str], optional: bool = False) -> dict[str, Any] | None:
    """A file that holds one JSON object; without it None, and a problem unless `optional`."""
    try:
        return runlog.decode(path.read_bytes())
    except FileNotFoundError:
        if path.parent.exists() and not optional:
            problems.append(f"no {path.name}")
    except (OSError, ValueError, AttributeError) as error:
        problems.append(f"{path.name} is damaged ({error}) and left out")
    return None


def _read_lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; damaged ones are left out and named."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        if path.parent.exists():
            problems.append(f"no {path.name}, so it has no numbers")
        return []
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
        return []
    torn = lines.pop()  # b"" where the last line is whole
    if torn:
        problems.append(f"{path.name}: its last line is cut off ({len(torn)} bytes) and left out")
    try:  # one call for all lines is twice as fast
        records = json.loads(b"[" + b",".join(lines) + b"]")
        sound = all(type(r) is dict and type(r.get("step")) is int for r in records)
        if sound and len(records) == len(lines):
            return [runlog.restored(record) for record in records]
    except (ValueError, AttributeError, TypeError):
        pass
    return _read_each_line(path, lines, problems)


def _read_each_line(path: Path, lines: list[bytes], problems: list[str]) -> list[dict[str, Any]]:
    """Line by line, since one of them is damaged."""
    records, bad = [], []
    for number, line in enumerate(lines, start=1):
        try:
            record = runlog.decode(line)
            if type(record.get("step")) is not int:
                raise ValueError("no step")
            records.append(record)
        except (ValueError, AttributeError, TypeError):
            bad.append(number)
    if bad:
        which = f"line {bad[0]}" if len(bad) == 1 else f"{len(bad)} lines, the first is {bad[0]},"
        problems.append(f"{path.name}: {which} damaged and left out")
    return records


# ------------------------------------------------------------------------------- status and numbers


def _status(
    folder: Path, summary: Mapping[str, Any] | None, facts: Mapping[str, Any], problems: list[str]
) -> Status:
    """How the run stands, from disk alone."""
    if not holds_run(folder):
        problems.append("planned, but not started")
        return "missing"
    ended = (summary or {}).get("status")
    if ended in runlog.STATUSES:
        if ended == "stopped":
            problems.append("stopped before its end; the same command resumes it")
        return ended
    if is_locked(folder):
        problems.append("still running")
        return "running"
    last = (facts.get("launches") or [{}])[-1]
    if last.get("status") == "failed":
        problems.append(f"failed: {last.get('error')}")
        return "failed"
    problems.append("ended without a summary (killed?); the same command resumes it")
    return "stopped"


def _numbers(
    summary: dict[str, Any] | None,
    records: Sequence[dict[str, Any]],
    config: Mapping[str, Any],
    val: Columns,
    problems: list[str],
) -> dict[str, Any]:
    """summary.json where it agrees with the lines, else the same numbers computed from them."""
    numbers, total = summary or {}, value_at(config, "train.total_steps")
    if not isinstance(total, int):
        total = numbers.get("steps") or max((r["step"] for r in records), default=0)
    if "final_val_loss" in numbers:
        recorded = _loss_at(val, total)
        same = _same(numbers["final_val_loss"], recorded)
        if not records or (same and not is_outdated(numbers)):
            return numbers
        if not same:
            problems.append(
                f"summary.json has final val loss {numbers['final_val_loss']}, metrics.jsonl "
                f"{recorded}; computed from metrics.jsonl"
            )
    try:
        return numbers | summarize(records, total)
    except (TypeError, ValueError, KeyError) as error:
        problems.append(f"its numbers cannot be computed: {error!r}")
        return numbers


def _loss_at(val: Columns, step: int) -> float | None:
    """Val loss of the evaluation at `step`; None without one."""
    if "val/loss" not in val:
        return None
    losses = val["val/loss"][val["step"] == step]
    return float(losses[-1]) if len(losses) else None


def _same(a: float | None, b: float | None) -> bool:
    """Equal, also as None or NaN."""
    return a == b or (a != a and b != b)
