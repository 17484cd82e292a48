"""results.csv: one line per run, for a spreadsheet or a notebook."""

from __future__ import annotations

import csv
import io
from typing import Any

from report.run import Run, value_at
from report.study import Study

FIRST = ("run", "contest", "arm", "role", "seed", "data_seed", "status", "diverged")
LAST = ("weights_hash", "batches_hash", "source", "problems")
TABLES = ("optimizer", "schedule", "train")  # of a run's configuration
FORMULA = tuple("=+-@\t\r")  # a spreadsheet takes text that begins so for a formula


def results(study: Study) -> str:
    """Identity, every number of the summary, hyperparameters and problems of each run."""
    names = dict.fromkeys(name for run in study.runs for name in run.summary)
    numbers = [name for name in names if name not in (*FIRST, "nonfinite")]
    keys = dict.fromkeys(
        f"{table}.{key}"
        for run in study.runs
        for table in TABLES
        for key in run.config.get(table) or {}
    )
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*FIRST, *numbers, *keys, *LAST])
    for run in study.runs:
        middle = [run.summary.get(name) for name in numbers]
        middle += [value_at(run.config, key) for key in keys]
        writer.writerow(map(_safe, [*_identity(run), *middle, *_origin(run)]))
    return file.getvalue()


def _identity(run: Run) -> list[Any]:
    """Values of FIRST."""
    who = [run.name, run.contest, run.arm, run.role, run.seed, run.data_seed]
    return [*who, run.status, run.diverged]


def _origin(run: Run) -> list[Any]:
    """Values of LAST."""
    hashes = [run.hashes.get("weights"), run.hashes.get("batches")]
    return [*hashes, run.source, "; ".join(run.problems)]


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
