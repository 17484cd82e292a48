"""Where the numbers come from: runs, machines, versions, settings, and how to repeat them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from report.formats import NONE, loss, short
from report.run import Run
from report.sections import Cell, Line, Section, Table
from report.study import Study

FACTS = ("device", "cpu", "host", "python", "cuda", "dtype", "world_size", "threads")
PACKAGES = ("torch", "numpy", "wandb")
TABLES = ("model", "data", "train", "eval")  # of a run's configuration
SHOWN_VALUES = 8  # of one fact; more are counted


def runs_table(study: Study) -> Section:
    """Every run, however it ended."""
    columns = (
        "run",
        "arm",
        "role",
        "seed",
        "data seed",
        "status",
        "final val loss",
        "steps",
        "weights",
        "batches",
    )
    rows = [_run_row(run) for run in study.runs]
    text = "Runs with equal seeds have equal hashes of their initial weights and first batches."
    return Section("runs", f"Runs ({len(rows)})", text, [Table(columns, rows)], folded=True)


def _run_row(run: Run) -> Line:
    return [
        run.name,
        run.arm,
        run.role,
        str(run.seed),
        str(run.data_seed),
        Cell("diverged" if run.diverged else run.status, "" if run.done else "worse"),
        loss(run.summary.get("final_val_loss")),
        short(run.summary.get("steps"), 9),
        run.hashes.get("weights", NONE)[:8],
        run.hashes.get("batches", NONE)[:8],
    ]


def provenance(study: Study, command: str) -> Section:
    """Machines, versions and settings, and the commands that give the numbers again."""
    facts: dict[str, Callable[[Run], Any]] = {
        **{name: _environment(name) for name in FACTS},
        **{package: _version(package) for package in PACKAGES},
        "commit": _commit,
        **{f"[{table}]": _settings(table) for table in TABLES},
    }
    rows = [[name, _counted(map(fact, study.runs))] for name, fact in facts.items()]
    again = [f"this report: {command}"]
    for arm in study.arms:
        run = next((run for run in study.of(arm) if run.config), None)
        if run:
            again.append(f"{arm} again: python train_gpt2.py {run.source}/config.toml")
    table = Table(("what", "runs"), [row for row in rows if row[1]])
    return Section("provenance", "Provenance", "", [table], again, folded=True)


def _environment(name: str) -> Callable[[Run], Any]:
    return lambda run: run.environment.get(name)


def _version(package: str) -> Callable[[Run], Any]:
    return lambda run: (run.environment.get("versions") or {}).get(package)


def _settings(table: str) -> Callable[[Run], str | None]:
    """One table of a run's configuration, as JSON."""
    return lambda run: (
        json.dumps(run.config[table], sort_keys=True) if table in run.config else None
    )


def _commit(run: Run) -> str | None:
    """Commit, and whether files differed from it."""
    git = run.environment.get("git") or {}
    commit = git.get("commit")
    return f"{str(commit)[:12]}{' with changes' if git.get('dirty') else ''}" if commit else None


def _counted(values: Iterable[Any]) -> str:
    """Distinct values; where they differ, with the number of runs that have each."""
    seen = Counter(str(value) for value in values if value is not None)
    if len(seen) <= 1:
        return next(iter(seen), "")
    shown = [f"{value} ({n})" for value, n in list(seen.items())[:SHOWN_VALUES]]
    more = [f"{len(seen) - SHOWN_VALUES} more"] if len(seen) > SHOWN_VALUES else []
    return "; ".join([*shown, *more])
