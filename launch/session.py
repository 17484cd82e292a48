"""What rank 0 does for all ranks when a run begins and ends: open its record, and close it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from configs import Config
from launch.process import Process, print_once
from record import checkpoints, runlog
from record.metrics import StreamMetrics, summarize
from record.resume import open_run
from record.screen import closing


def already_ended(config: Config) -> int | None:
    """The exit code of a run that finished or diverged before, which is said; None otherwise."""
    summary = runlog.read_summary(config.directory)
    if not summary or summary["status"] == "stopped":
        return None
    print_once(
        f"{config.directory} has {summary['status']} already, see its summary.json; another --seed "
        "is another run; remove the folder to repeat this one"
    )
    return runlog.EXIT_CODES[summary["status"]]


def open_record(process: Process, config: Config) -> tuple[runlog.Log, Path | None]:
    """The run's record, and the checkpoint to resume from (None: from step 0).

    Raises:
        RunError: the folder cannot be used, or is not the same on all nodes; on all ranks.
    """
    where = config.log.model_dump(include={"project", "entity", "group", "job_type"})
    wandb = runlog.WandbOptions(mode=config.log.wandb, name=config.run_name, **where)
    toml, table = config.toml(), config.table()
    opened = process.on_rank_0(lambda: open_run(config.directory, wandb, toml, table))
    checkpoint, problem = process.broadcast(opened and opened[1]), None
    if checkpoint and not checkpoint.exists():
        problem = f"{checkpoint} is not on {process.host}: all nodes need the same --log.dir"
    process.agree(problem)
    return opened[0] if opened else runlog.NoLog(), checkpoint


def write_checkpoint(
    config: Config,
    log: runlog.Log,
    progress: checkpoints.Progress,
    metrics: StreamMetrics,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Rank 0: a checkpoint, after the lines of metrics.jsonl that belong to it are on disk.

    Raises:
        OSError: one of them cannot be written; the message says what to do.
    """
    try:
        progress.metrics, progress.log_offset = metrics.state_dict(), log.offset()
        states = model.state_dict(), optimizer.state_dict()
        content = checkpoints.Checkpoint(config.run_name, config.toml(), progress, *states)
        checkpoints.save(config.directory / "checkpoints", config.checkpoint.keep, content)
    except OSError as error:
        raise OSError(
            f"stopped at step {progress.step}: {error}; the checkpoints before it are whole: make "
            "room, then give the same command again"
        ) from None


def close_record(
    process: Process,
    config: Config,
    log: runlog.Log,
    status: runlog.Status,
    facts: Mapping[str, Any],
) -> None:
    """Write the summary: what the metrics say, and `facts`; then print the closing lines.

    Raises:
        RunError: it cannot be written; on all ranks.
    """

    def write() -> None:
        metrics = runlog.read_metrics(config.directory)
        summary = summarize(metrics, config.train.total_steps) | dict(facts)
        log.finish(status, summary)
        if status == "finished":
            print(closing(summary, config.directory))

    process.on_rank_0(write)
