"""One run as the report sees it, wherever it was read from.

report/folders.py reads runs from disk, report/wandb_runs.py from Weights & Biases. What both need
is here: the lines of metrics.jsonl as columns of numbers, and the checks on those columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from record.contest import Role
from record.inside import Measured
from record.metrics import climb_limit
from record.sharpness import Sharpness

Status = Literal["finished", "stopped", "diverged", "running", "failed", "missing"]
Pair = tuple[int, int]  # (seed, data_seed)
Columns = dict[str, NDArray[np.float64]]

ACCURACY = "hellaswag/acc_norm"
SHOWN_STEPS = 5  # in a message; more are counted
WANDB_PREFIX = "wandb:"  # of a path or a source in Weights & Biases


class ReportError(ValueError):
    """The report cannot be made as asked; one line that says how to mend it."""


@dataclass(frozen=True)
class Run:
    """One run, however it ended.

    train: columns of the lines with train/loss, by their full names, plus "step"; NaN where null.
    val: columns of the lines with val/loss: "step", "val/loss", "time/eval_seconds", and ACCURACY
        where questions were asked.
    summary: record.metrics.summarize, and what the trainer added (docs/record.md).
    inside: what updates showed of every tensor (record/inside.py); None unless measured.
    sequences: the final loss of each held-out sequence, by split (record/sequences.py).
    sharpness: what was measured at its checkpoints afterwards, by step (record/sharpness.py).
    length: updates, where its arm was trained at several lengths; None otherwise.
    planned: whether a contest's plan lists it, and so names its arm.
    shared: why its seconds are not compared (report/seconds.py); None if they may be.
    """

    name: str
    source: str
    arm: str
    role: Role
    contest: str | None
    seed: int
    data_seed: int
    config: dict[str, Any]
    train: Columns
    val: Columns
    summary: dict[str, Any]
    hashes: dict[str, str]
    facts: dict[str, Any]
    status: Status
    problems: tuple[str, ...] = ()
    length: int | None = None
    planned: bool = False
    shared: str | None = None
    inside: Measured | None = None
    sequences: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    sharpness: tuple[Sharpness, ...] = ()

    @property
    def pair(self) -> Pair:
        """What runs of different arms must share to be compared one to one."""
        return self.seed, self.data_seed

    @property
    def diverged(self) -> bool:
        """Whether the run ended as diverged, or its numbers say so (docs/record.md)."""
        return self.status == "diverged" or bool(self.summary.get("diverged"))

    @property
    def recovered_from(self) -> int:
        """Updates of a climb of its loss that ended before the run did; 0 without one."""
        longest, total = self.summary.get("climb_updates") or 0, self.total_steps
        climbed = total and longest >= climb_limit(total)
        return longest if climbed and not self.diverged else 0

    @property
    def done(self) -> bool:
        """It has a final loss, or will never have one."""
        return self.status == "finished" or self.diverged

    @property
    def final_loss(self) -> float | None:
        """Final val loss in nats per token; None unless it is a finite number."""
        value = self.summary.get("final_val_loss")
        return None if value is None or not isfinite(value) else float(value)

    @property
    def total_steps(self) -> int | None:
        """Updates that it was configured for; the plan's number if it has not begun."""
        return value_at(self.config, "train.total_steps") or self.length

    @property
    def environment(self) -> dict[str, Any]:
        """Machine and versions of its latest launch."""
        return (self.facts.get("launches") or [{}])[-1].get("environment") or {}

    def hardware(self, name: str) -> list[str]:
        """All values of "device" or "dtype" over its launches and its trunk's last, sorted."""
        launches = [each.get("environment") or {} for each in self.facts.get("launches") or []]
        trunk = self.facts.get("branched_from") or {}
        return sorted({str(each[name]) for each in (*launches, trunk) if each.get(name)})


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key of nested tables; None if it is absent."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def default_arm(config: Mapping[str, Any]) -> str | None:
    """<optimizer>-<schedule>, where nobody has named the arm; None unless both are known."""
    schedule = value_at(config, "schedule.name")
    optimizer = optimizer_words(config)
    return f"{optimizer}-{str(schedule).rpartition('.')[2]}" if optimizer and schedule else None


def optimizer_words(config: Mapping[str, Any]) -> str:
    """The optimizer's name without its module, and its wrappers: adamw+ema; "" if it is unknown."""
    name = str(value_at(config, "optimizer.name") or "").rpartition(".")[2]
    return "+".join([name, *(value_at(config, "optimizer.wrap") or {})]) if name else ""


def columns(records: Sequence[dict[str, Any]], problems: list[str]) -> tuple[Columns, Columns]:
    """(train, val) columns, ordered by step; if a step comes twice, its later line counts.

    records: lines of metrics.jsonl. problems: gains a line for steps that come twice.
    """
    train = {r["step"]: r for r in records if "train/loss" in r}
    val = {r["step"]: r for r in records if "val/loss" in r}
    updates = sum("train/loss" in r for r in records)
    if len(train) < updates:
        problems.append(f"steps recorded twice: {updates - len(train)}; the later line counts")
    train_names = dict.fromkeys(name for r in train.values() for name in r)
    asked = [ACCURACY] if any(ACCURACY in r for r in val.values()) else []
    val_names = ("step", "val/loss", "time/eval_seconds", *asked)
    return _table(train, train_names), _table(val, val_names)


def _table(records: Mapping[int, dict[str, Any]], names: Iterable[str]) -> Columns:
    """Columns of float64, one value per step; what is no number is NaN."""
    rows = [records[step] for step in sorted(records)]
    result: Columns = {}
    for name in names if rows else ("step",):
        values = [row.get(name) for row in rows]
        try:
            result[name] = np.array(values, dtype=np.float64)  # None becomes NaN
        except (TypeError, ValueError):
            numbers = [v if isinstance(v, int | float) else np.nan for v in values]
            result[name] = np.array(numbers, dtype=np.float64)
    return result


def check_lines(
    train: Columns, val: Columns, config: Mapping[str, Any], status: Status
) -> list[str]:
    """Updates and evaluations that should be recorded and are not, in words."""
    steps = train.get("step", np.array([]))
    last = int(steps[-1]) if len(steps) else -1
    problems = []
    if len(steps) != last + 1:
        problems.append(f"updates missing in metrics.jsonl: {last + 1 - len(steps)}")
    total, every = value_at(config, "train.total_steps"), value_at(config, "eval.every")
    if not (isinstance(total, int) and isinstance(every, int) and every > 0):
        return problems
    reached = total if status == "finished" else last
    due = {step for step in (*range(0, total, every), total) if step <= reached}
    if missing := sorted(due - {int(step) for step in val.get("step", ())}):
        more = ", ..." if len(missing) > SHOWN_STEPS else ""
        shown = ", ".join(map(str, missing[:SHOWN_STEPS])) + more
        problems.append(f"evaluations missing: {len(missing)}, at step {shown}")
    if status == "finished" and len(steps) and last + 1 < total:
        problems.append(f"finished, but its last update is {last} of {total}")
    return problems
