"""Open a run's folder: lock it, find the checkpoint to resume from, see whether code changed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs import Config
from record import checkpoints, runlog


def open_run(
    directory: Path,
    wandb: runlog.WandbOptions,
    config_toml: str,
    config: dict[str, Any],
    tensorboard: bool = False,
) -> tuple[runlog.RunLog, Path | None]:
    """The record of the run, and the checkpoint that it resumes from (None: from step 0).

    The other arguments are as RunLog takes them; `wandb.name` is the name of the run.

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
            tensorboard=tensorboard,
            held=lock,
        )
    except OSError as error:
        raise runlog.RecordError(
            f"cannot write the run's folder {directory}: {error}; give another with --log.dir"
        ) from None
    return log, checkpoint


def other_version(config: Config, origins: Mapping[str, str]) -> str | None:
    """A line if this new run is one that was made before, but for its own class or function.

    Another version of these is another run (Config.versions); the line names the newest folder.
    origins: as configs.origins gives them; a default may differ between two versions.
    """
    folder, start = Path(config.log.dir), config.run_name.rpartition("-")[0]
    if not config.versions or config.directory.exists() or not folder.is_dir():
        return None
    known = {".".join(origin.split(".")[:2]) for origin in origins}
    alike = (other for other in folder.iterdir() if other.name.rpartition("-")[0] == start)
    for other in sorted(alike, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            theirs = tomllib.loads((other / runlog.CONFIG).read_text(encoding="utf-8"))
            tables: dict[str, Any] = {"versions": theirs.get("versions", {})}
            for key, named in (("optimizer", config.optimizer), ("schedule", config.schedule)):
                given = {k: v for k, v in named.model_dump().items() if f"{key}.{k}" in known}
                tables[key] = type(named)(**theirs[key] | given)
        except (OSError, KeyError, TypeError, ValueError):
            continue  # the report names damaged folders
        if config.model_copy(update=tables).run_name == other.name:
            new = (k for k, v in config.versions.items() if tables["versions"].get(k) != v)
            return f"{other} was made by another version of {' and '.join(new)}; this is a new run"
    return None


def changed_code(launches: Sequence[Mapping[str, Any]], step: int) -> str | None:
    """A line if the last of `launches` resumes at `step` with other code than the one before it."""
    known = [launch["environment"] for launch in launches if "environment" in launch]
    if launches[-1].get("resume_offset") is None or len(known) < 2:
        return None
    before, now = known[-2:]
    # Records of older versions have the commit only.
    same = "code" if "code" in before else "git"
    if before.get(same) == now[same]:
        return None
    versions = f"{_version(before)} to {_version(now)}"
    return f"the code has changed from {versions} since step {step}; training goes on"


def _version(environment: Mapping[str, Any]) -> str:
    """The commit if it says all, else also the hash of the files."""
    git, files = environment.get("git"), f"files {environment.get('code', 'unknown')}"
    if not git:
        return files
    commit = f"commit {git['commit'][:8]}"
    return f"{commit} with changes ({files})" if git["dirty"] else commit
