"""Where the numbers come from: runs, machines, versions, settings, and how to repeat them."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable
from typing import Any

from report.formats import NONE, loss, short
from report.run import WANDB_PREFIX, Run
from report.sections import Cell, Line, Section, Table
from report.study import Study

FACTS = ("device", "cpu", "host", "python", "cuda", "dtype", "world_size", "threads")
PACKAGES = ("torch", "numpy", "wandb")
TABLES = ("model", "data", "train", "eval")  # of a run's configuration
AGAIN = "runs/again"  # in its own folder the run has finished already
SHOWN_VALUES = 8  # of one fact; more are counted


def plan_history(study: Study) -> Section | None:
    """What was planned, and what was changed when."""
    if not study.history:
        return None
    text = (
        "An entry is written before the first run of a plan, and whenever the plan has changed. "
        "p values do not know that somebody saw results before adding seeds: who looks after every "
        "seed from the third to the tenth calls 17 % of equal arms different, not 5 %."
    )
    return Section("plan", "History of the plan", text, lines=study.history)


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
    facts = [_facts(run) for run in study.runs]
    names = dict.fromkeys(name for each in facts for name in each)
    rows = [[name, _counted(each[name] for each in facts)] for name in names]
    again = [f"this report: {command}"]
    for arm in study.arms:
        if run := next(filter(_has_folder, study.of(arm)), None):
            words = ["python", "train_gpt2.py", f"{run.source}/config.toml", "--log.dir", AGAIN]
            again.append(f"{arm} again: {shlex.join(words)}")
    table = Table(("what", "runs"), [row for row in rows if row[1]])
    return Section("provenance", "Provenance", "", [table], again, folded=True)


def _has_folder(run: Run) -> bool:
    """Whether its configuration lies on disk; W&B has no file of it."""
    return bool(run.config) and not run.source.startswith(WANDB_PREFIX)


def _facts(run: Run) -> dict[str, Any]:
    """Machine, versions, commit and settings of a run; None for what is not recorded."""
    environment, config = run.environment, run.config
    versions, git = environment.get("versions") or {}, environment.get("git") or {}
    commit = git.get("commit")
    changes = " with changes" if git.get("dirty") else ""
    return {
        **{name: environment.get(name) for name in FACTS},
        **{package: versions.get(package) for package in PACKAGES},
        "commit": f"{str(commit)[:12]}{changes}" if commit else None,
        **{f"[{table}]": _settings(config, table) for table in TABLES},
    }


def _settings(config: dict[str, Any], table: str) -> str | None:
    """One table of a configuration, as JSON."""
    return json.dumps(config[table], sort_keys=True) if table in config else None


def _counted(values: Iterable[Any]) -> str:
    """Distinct values; where they differ, with the number of runs that have each."""
    seen = Counter(str(value) for value in values if value is not None)
    if len(seen) <= 1:
        return next(iter(seen), "")
    shown = [f"{value} ({n})" for value, n in list(seen.items())[:SHOWN_VALUES]]
    more = [f"{len(seen) - SHOWN_VALUES} more"] if len(seen) > SHOWN_VALUES else []
    return "; ".join([*shown, *more])
