"""Runs read back from Weights & Biases: `wandb:entity/project[/group]` as a source of the report.

The mirror (record/wandb_mirror.py) sends there what the report needs of a run's folder: all steps
(read by scan_history, not W&B's sampled history), the configuration, the summary with the hashes;
group and job type are contest and arm. W&B holds neither the rest of record.json (launches,
environments) nor the losses of each sequence.
"""

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from record.contest import ROLES, contest_and_role, group
from record.metrics import summarize
from record.wandb_mirror import has_credentials, one_line, start_service
from report.run import (
    WANDB_PREFIX,
    ReportError,
    Run,
    Status,
    check_lines,
    columns,
    default_arm,
    value_at,
)

TIMEOUT = 30  # seconds for the server to accept the account
# By default wandb-core tries a lost server for a quarter of an hour, which suits training runs.
PATIENCE = {"x_graphql_retry_max": 3, "x_graphql_retry_wait_max_seconds": 4.0}
AT_ONCE = 8  # runs read at the same time; each is a few requests that mostly wait
# An evaluation's line in metrics.jsonl; the rest is of an update.
VAL = ("val/", "test/", "hellaswag/", "time/eval_seconds")  # how its names begin
NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def read_wandb(path: str) -> list[Run]:
    """All runs of a W&B project, or of one contest in it with its tuning and trunk runs.

    path: "wandb:entity/project" or "wandb:entity/project/contest".

    Raises:
        ReportError: no account, no such project or contest, or no answer; one line.
    """
    entity, project, contest = _parse(path)
    filters = {"group": {"$in": [group(contest, role) for role in ROLES]}} if contest else {}
    api = connect()
    try:
        found = list(api.runs(f"{entity}/{project}", filters=filters, lazy=False))
        if not found:
            raise ReportError(f"{path} has no runs; {_groups(api, entity, project)}")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return _newest(list(pool.map(_read_run, found)))
    except ReportError:
        raise
    except Exception as error:  # W&B's client raises half a dozen kinds, and changes them
        raise ReportError(_explain(error, entity, project)) from error


def _parse(path: str) -> tuple[str, str, str]:
    """Entity, project and contest ("" for all) of a path.

    Raises:
        ReportError: an entity or a project is missing.
    """
    parts = path.removeprefix(WANDB_PREFIX).split("/", 2)
    if len(parts) < 2 or not all(parts):
        expected = f"{WANDB_PREFIX}entity/project[/group]"
        raise ReportError(f"{path!r} names no W&B project; write {expected}")
    entity, project, contest = [*parts, ""][:3]
    return entity, project, contest


def connect() -> Any:
    """A wandb.Api with credentials that its server accepts, which never asks on the terminal.

    Raises:
        ReportError: there are no credentials, the server refuses them, or it does not answer.
    """
    settings = start_service(**PATIENCE).settings
    if not has_credentials(settings):
        raise ReportError(
            f"no W&B account for {settings.base_url}: run `wandb login`, or set WANDB_API_KEY"
        )
    import wandb

    try:
        return wandb.Api(timeout=TIMEOUT)
    except Exception as error:
        raise ReportError(
            f"W&B at {settings.base_url} did not accept the credentials ({one_line(error)}); "
            "check the network, or `wandb login --relogin`"
        ) from error


def _explain(error: Exception, entity: str, project: str) -> str:
    """One line for what went wrong while reading."""
    if "Could not find project" in str(error):
        return (
            f"W&B has no project {entity}/{project}, or this account cannot see it; its address "
            f"https://wandb.ai/ENTITY/PROJECT has both names"
        )
    return f"W&B did not return {entity}/{project} ({one_line(error)}); try again, or read folders"


def _groups(api: Any, entity: str, project: str) -> str:
    """The project's groups, for an error message."""
    names = {run.group for run in api.runs(f"{entity}/{project}") if run.group}
    return f"groups of {entity}/{project}: {', '.join(sorted(names)) or 'none'}"


def _read_run(source: Any) -> Run:
    """One run of wandb.Api as a Run; its `problems` say what is wrong with it."""
    records = _lines(source.scan_history(use_cache=False))  # a cached one may end too early
    config, problems = dict(source.config), list[str]()
    added = _added(source.summary, records)
    status = settled(source.state, added.pop("status", None), problems)
    hashes, hardware = added.pop("hashes", None) or {}, added.pop("hardware", None) or {}
    about = {"id": source.id, "url": source.url, "created": source.created_at}
    contest, role = contest_and_role(source.group or "")
    train, val = columns(records, problems)
    total_steps = value_at(config, "train.total_steps")
    if total_steps is None:
        problems.append("its configuration in W&B is not one of train_gpt2.py: seeds are guessed")
    else:
        problems += check_lines(train, val, config, status)
    return Run(
        name=source.name or source.id,
        source=f"{WANDB_PREFIX}{source.entity}/{source.project}/{source.id}",
        arm=source.job_type or default_arm(config) or source.name,
        role=role,
        contest=contest or None,
        seed=_seed(config.get("seed")),
        data_seed=_seed(config.get("data_seed")),
        config=config,
        train=train,
        val=val,
        summary=added | summarize(records, total_steps or len(records)),
        hashes=dict(hashes),
        facts={"wandb": about, "launches": [{"environment": dict(hardware)}]},
        status=status,
        problems=tuple(problems),
    )


def _added(summary: Any, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What the trainer put into W&B's summary, without what W&B puts there from the history."""
    logged = {name for record in records for name in record}
    values = _restored(dict(summary))
    return {k: v for k, v in values.items() if k not in logged and not k.startswith("_")}


def _seed(value: Any) -> int:
    """A seed; 1 for what is none."""
    return value if isinstance(value, int) else 1


def _lines(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of W&B's history, one per step, as the lines of metrics.jsonl that they came from."""
    records = []
    for row in rows:
        values = _restored({k: v for k, v in row.items() if not k.startswith("_")})
        val = {name: values.pop(name) for name in [*values] if name.startswith(VAL)}
        records += [{"step": row["_step"], **part} for part in (val, values) if part]
    return records


def _restored(values: dict[str, Any]) -> dict[str, Any]:
    """Non-finite numbers put back: W&B's server gives them as words."""
    return {k: NONFINITE.get(v, v) if isinstance(v, str) else v for k, v in values.items()}


def settled(state: str, recorded: str | None, problems: list[str]) -> Status:
    """How the run stands, from W&B's state and what the trainer recorded at its last end.

    state: running, pending, finished, failed (an exit code), crashed, killed, preempted, ...
    recorded: status of summary.json, or "failed"; of an earlier launch if this one has not ended.
    """
    if state in ("running", "pending"):
        problems.append("still running")
        return "running"
    if state in ("finished", "failed") and recorded in ("finished", "diverged", "stopped"):
        if recorded == "stopped":
            problems.append("stopped before its end; the same command resumes it")
        return recorded  # type: ignore[return-value]
    problems.append(f"W&B says {state}, and the trainer recorded no end")
    return "failed"


def _newest(runs: list[Run]) -> list[Run]:
    """One run for each name in a contest: the latest, which names the attempts before it.

    A run that was killed before its first checkpoint begins anew, and has two entries in W&B.
    """
    attempts: dict[tuple[str | None, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.facts["wandb"]["created"]):
        attempts.setdefault((run.contest, run.role, run.name), []).append(run)
    return [_naming(earlier, last) for *earlier, last in attempts.values()]


def _naming(earlier: list[Run], last: Run) -> Run:
    """`last` with a problem for each attempt before it."""
    left_out = [f"left out {run.source}, an earlier attempt ({run.status})" for run in earlier]
    return replace(last, problems=(*last.problems, *left_out))
