"""Runs read back from Weights & Biases: `wandb:entity/project[/group]` as a source of the report.

The mirror (record/wandb_mirror.py) sends there what a run's folder holds, so a run read from W&B
is the run read from its folder: all steps (scan_history, not W&B's sampled history), the
configuration, the summary with the hashes; group and job type are contest and arm. What W&B does
not hold is the rest of record.json (launches, environments).
"""

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from record.metrics import summarize
from record.wandb_mirror import has_credentials, one_line, start_service
from report.runs import ReportError, Role, Run, Status, check_lines, columns, named, value_at

PREFIX = "wandb:"
TIMEOUT = 30  # seconds for the server to accept the account
# By default wandb-core tries a lost server for a quarter of an hour, which suits training runs.
PATIENCE = {"x_graphql_retry_max": 3, "x_graphql_retry_wait_max_seconds": 4.0}
AT_ONCE = 8  # runs read at the same time; each is a few requests that mostly wait
VAL = ("val/loss", "time/eval_seconds")  # an evaluation's line in metrics.jsonl; the rest is train
ROLES: dict[Role, str] = {
    "tuning": "-tuning",
    "trunk": "-trunk",
}  # suffixes of the group, as launch writes them
NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def read_wandb(path: str) -> list[Run]:
    """All runs of a W&B project, or of one contest in it with its tuning and trunk runs.

    path: "wandb:entity/project" or "wandb:entity/project/group".
    Errors: ReportError in one line: no account, no such project or group, no answer.
    """
    entity, project, group = parse(path)
    filters = {"group": {"$in": [group, *(group + suffix for suffix in ROLES.values())]}}
    api = connect()
    try:
        found = list(api.runs(f"{entity}/{project}", filters=filters if group else {}, lazy=False))
        if not found:
            raise ReportError(f"{path} has no runs; {groups(api, entity, project)}")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return newest(list(pool.map(read_run, found)))
    except ReportError:
        raise
    except Exception as error:  # W&B's client raises half a dozen kinds, and changes them
        raise ReportError(explain(error, entity, project)) from error


def parse(path: str) -> tuple[str, str, str]:
    """Entity, project and group ("" for all) of a path. Errors: ReportError."""
    parts = path.removeprefix(PREFIX).split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise ReportError(f"{path!r} names no W&B project; write {PREFIX}entity/project[/group]")
    entity, project, group = [*parts, ""][:3]
    return entity, project, group


def connect() -> Any:
    """A wandb.Api with credentials that its server accepts, which never asks on the terminal.

    Errors: ReportError without credentials, with refused ones, or without an answer.
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
            f"W&B at {settings.base_url} took no credentials ({one_line(error)}); check the "
            "network, or `wandb login --relogin`"
        ) from error


def explain(error: Exception, entity: str, project: str) -> str:
    """One line for what went wrong while reading."""
    if "Could not find project" in str(error):
        return (
            f"W&B has no project {entity}/{project}, or this account cannot see it; its address "
            f"https://wandb.ai/ENTITY/PROJECT has both names"
        )
    return f"W&B did not give {entity}/{project} ({one_line(error)}); try again, or read folders"


def groups(api: Any, entity: str, project: str) -> str:
    """What is there instead, for a message."""
    names = {run.group for run in api.runs(f"{entity}/{project}") if run.group}
    return f"groups of {entity}/{project}: {', '.join(sorted(names)) or 'none'}"


def read_run(source: Any) -> Run:
    """One run of wandb.Api as a Run; `problems` says what is wrong with it."""
    records = lines(source.scan_history(use_cache=False))  # a cached one may end too early
    config, told, problems = dict(source.config), plain(dict(source.summary)), list[str]()
    logged = {name for record in records for name in record}
    added = {k: v for k, v in told.items() if k not in logged and not k.startswith("_")}
    status = settled(source.state, added.pop("status", None), problems)
    hashes, (contest, role) = added.pop("hashes", None) or {}, contest_and_role(source.group)
    train, val = columns(records, problems)
    total_steps = value_at(config, "train.total_steps")
    if total_steps is None:
        problems.append("its configuration in W&B is not one of train_gpt2.py: seeds are guessed")
    else:
        check_lines(train, val, config, status, problems)
    return Run(
        name=source.name or source.id,
        source=f"{PREFIX}{source.entity}/{source.project}/{source.id}",
        arm=source.job_type or named(config) or source.name,
        role=role,
        contest=contest,
        seed=whole(config.get("seed")),
        data_seed=whole(config.get("data_seed")),
        config=config,
        train=train,
        val=val,
        summary=added | summarize(records, total_steps or len(records)),
        hashes=dict(hashes),
        facts={"wandb": {"id": source.id, "url": source.url, "created": source.created_at}},
        status=status,
        problems=tuple(problems),
    )


def whole(seed: Any) -> int:
    """A seed; 1 for what is none."""
    return seed if isinstance(seed, int) else 1


def lines(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of W&B's history, one per step, as the lines of metrics.jsonl that they came from."""
    records = []
    for row in rows:
        values = plain({k: v for k, v in row.items() if not k.startswith("_")})
        val = {name: values.pop(name) for name in VAL if name in values}
        records += [{"step": row["_step"], **part} for part in (val, values) if part]
    return records


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Non-finite numbers restored, which W&B's server gives as words."""
    return {
        k: NONFINITE.get(v, v) if isinstance(v, str) else v
        for k, v in values.items()
    }  # fmt: skip


def contest_and_role(group: str | None) -> tuple[str | None, Role]:
    """Of a W&B group: `<contest>`, `<contest>-tuning` or `<contest>-trunk`."""
    for role, suffix in ROLES.items():
        if group and group.endswith(suffix):
            return group.removesuffix(suffix), role
    return group or None, "report"


def settled(state: str, told: str | None, problems: list[str]) -> Status:
    """How the run stands, from W&B's state and what the trainer told at its last end.

    state: running, pending, finished, failed (an exit code), crashed, killed, preempted, ...
    told: status of summary.json, or "failed"; of an earlier launch if this one has not ended.
    """
    if state in ("running", "pending"):
        problems.append("still running")
        return "running"
    if state in ("finished", "failed") and told in ("finished", "diverged", "stopped"):
        if told == "stopped":
            problems.append("stopped before its end; the same command goes on")
        return told  # type: ignore[return-value]
    problems.append(f"W&B says {state}, and its trainer told no end")
    return "failed"


def newest(runs: list[Run]) -> list[Run]:
    """One run for each name in a contest: the latest, which names the attempts before it.

    A run that was killed before its first checkpoint begins anew, and has two entries in W&B.
    """
    found: dict[tuple[str | None, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.facts["wandb"]["created"]):
        found.setdefault((run.contest, run.role, run.name), []).append(run)
    return [
        replace(last, problems=(*last.problems, *(
            f"left out {run.source}, an earlier attempt ({run.status})" for run in earlier
        )))
        for *earlier, last in found.values()
    ]  # fmt: skip
