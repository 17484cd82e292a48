"""Open a run's folder: lock it, and find the checkpoint to resume from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from record import checkpoints, runlog


def open_run(
    directory: Path, wandb: runlog.WandbOptions, config_toml: str, config: dict[str, Any]
) -> tuple[runlog.RunLog, Path | None]:
    """The record of the run, and the checkpoint that it resumes from (None: from step 0).

    config_toml, config, wandb: as RunLog takes them; `wandb.name` is the name of the run.

    Raises:
        RecordError: another process runs it, the folder cannot be written, or it holds another
            run's checkpoint, only torn ones, or a record that does not fit.
    """
    try:
        lock = runlog.lock(directory, wait_seconds=30)
        checkpoint, offset = checkpoints.newest_whole(directory / "checkpoints"), None
        if checkpoint:
            offset = checkpoints.load(checkpoint, wandb.name, mmap=True).progress.log_offset
        log = runlog.RunLog(
            directory,
            config_toml=config_toml,
            config=config,
            resume_offset=offset,
            wandb=wandb,
            held=lock,
        )
    except OSError as error:
        raise runlog.RecordError(
            f"cannot write the run's folder {directory}: {error}; give another with --log.dir"
        ) from None
    return log, checkpoint
