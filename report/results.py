"""results.csv: one line per run, for a spreadsheet or a notebook, and to report from again.

A published contest is a folder with this table and the contest's own files (`keep`), without its
runs: `read` gives the runs back, as far as final losses, settings and validation curves go.
"""

from __future__ import annotations

import ast
import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from record.contest import ROLES, Ledger, PlanFile, Timing
from record.history import HISTORY
from report import METRICS
from report.run import Columns, ReportError, Run, Status, value_at
from report.study import Study
from storage import write_atomically

RESULTS = "results.csv"
FIRST = ("run", "contest", "arm", "role", "seed", "data_seed", "status", "diverged")
CURVE = "val_curve"  # of a reporting run: "step:loss" of each evaluation, with spaces between
LAST = (CURVE, "weights_hash", "batches_hash", "source", "problems")
NEEDED = ("arm", "role", "seed")  # to read it; whatever else is absent is not known
TEXTS = ("run", "contest", "arm", "role", "status", *LAST)  # never numbers: a hash may be 12e45678
NUMBERS = (*METRICS, "train.total_steps", "train.batch_tokens", "data_seed")
TABLES = ("model", "optimizer", "schedule", "train")  # of a run's configuration
BETWEEN = " | "  # between problems, which have semicolons of their own
FORMULA = tuple("=+-@\t\r")  # a spreadsheet takes text that begins so for a formula


def results(study: Study) -> str:
    """Identity, numbers of the summary, hyperparameters, curve and problems of each run."""
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


def keep(home: Path, folder: Path) -> None:
    """Copy what a report needs of the contest in `home`, beside its results, to `folder`.

    The plan loses its list of runs, which results.csv has, and the timing its machine's name. A
    folder that holds no contest has none.
    """
    plan = PlanFile.read(home)
    if plan is None or folder.resolve() == home.resolve():
        return
    plan.model_copy(update={"runs": ()}).write(folder)
    if timing := Timing.read(home):
        timing.model_copy(update={"host": ""}).write(folder)
    for name in (Ledger.file_name, HISTORY):
        if (home / name).exists():
            write_atomically(folder / name, (home / name).read_text(encoding="utf-8"))


def read(file: Path) -> list[Run]:
    """The runs of a results.csv, without their updates, sequences and machines.

    Raises:
        ReportError: it cannot be read, or a line does not fit.
    """
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, ValueError, csv.Error) as error:
        raise ReportError(f"{file} cannot be read: {error}") from error
    lacking = [name for name in NEEDED if not rows or name not in rows[0]]
    if lacking:
        what = f"lacks {', '.join(lacking)}" if rows else "has no run"
        raise ReportError(f"{file} {what}; give the results.csv that `python -m report` wrote")
    return [_run(file, number, row) for number, row in enumerate(rows, start=2)]


def _cells(row: Mapping[str, str]) -> dict[str, Any]:
    """The values of one line.

    Raises:
        ValueError: a value does not fit; it says which.
    """
    if None in row or None in row.values():
        raise ValueError("it has not as many cells as the first line")
    values = {name: _text(x) if name in TEXTS else _value(x) for name, x in row.items()}
    values["status"] = values.get("status") or "finished"
    arm, role, status, seed = (values[name] for name in ("arm", "role", "status", "seed"))
    fits = arm and role in ROLES and status in get_args(Status) and type(seed) is int
    if not fits:
        raise ValueError(f"role {role!r}, status {status!r}, seed {seed!r}, arm {arm!r}")
    for name in NUMBERS:
        if not isinstance(values.get(name), int | float | None):
            raise ValueError(f"{name} {values[name]!r} is no number")
    return values


def _run(file: Path, number: int, row: Mapping[str, str]) -> Run:
    """One line."""
    try:
        values = _cells(row)
        batch = values.get("train.batch_tokens")
        val, train = _curve(values.get(CURVE) or "", batch)
    except ValueError as error:
        why = f"{file}, line {number}: {error}: it is not as the report wrote it"
        raise ReportError(why) from error
    config: dict[str, Any] = {}
    for key, value in values.items():
        table, _, name = key.partition(".")
        if name and value is not None:
            config.setdefault(table, {})[name] = value
    steps = value_at(config, "train.total_steps")
    return Run(
        name=values.get("run") or f"{file.name}:{number}",
        source=values.get("source") or f"{file}:{number}",
        arm=values["arm"].removesuffix(f" @ {steps:,}" if steps else ""),
        role=values["role"],
        contest=values.get("contest"),
        seed=values["seed"],
        data_seed=values["seed"] if (own := values.get("data_seed")) is None else own,
        config=config,
        train=train,
        val=val,
        summary={
            name: value
            for name, value in values.items()
            if name not in (*FIRST[:-1], *LAST) and "." not in name
        },
        hashes={
            name: value for name in ("weights", "batches") if (value := values.get(f"{name}_hash"))
        },
        facts={},
        status=values["status"],
        problems=tuple(problems.split(BETWEEN)) if (problems := values.get("problems")) else (),
        planned=True,
    )


def _curve(text: str, batch: int | None) -> tuple[Columns, Columns]:
    """Evaluations, and the tokens of the updates before them.

    Raises:
        ValueError: it is no curve.
    """
    pairs = [word.split(":") for word in text.split()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{CURVE} {text!r} is not made of step:loss")
    steps = np.array([float(step) for step, _ in pairs])
    val = {"step": steps, "val/loss": np.array([float(loss) for _, loss in pairs])}
    after = steps[steps > 0]
    return val, {"step": after - 1, **({"tokens": after * batch} if batch else {})}


def _text(cell: str) -> str | None:
    """Text before `_safe`; None if it is empty."""
    return (cell[1:] if cell[:1] == "'" and cell[1:].startswith(FORMULA) else cell) or None


def _value(cell: str) -> Any:
    """What a cell was before it was written; None if it is empty."""
    text = _text(cell)
    if text is None:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    try:
        return float(text)  # inf and nan
    except ValueError:
        return text


def _identity(run: Run) -> list[Any]:
    """Values of FIRST."""
    who = [run.name, run.contest, run.arm, run.role, run.seed, run.data_seed]
    return [*who, run.status, run.diverged]


def _origin(run: Run) -> list[Any]:
    """Values of LAST."""
    hashes = [run.hashes.get("weights"), run.hashes.get("batches")]
    curve = ""
    if run.role == "report" and "val/loss" in run.val:
        pairs = zip(run.val["step"].tolist(), run.val["val/loss"].tolist(), strict=True)
        curve = " ".join(f"{step:.0f}:{loss!r}" for step, loss in pairs)
    return [curve, *hashes, run.source, BETWEEN.join(run.problems)]


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
