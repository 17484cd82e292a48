"""Open a run's folder: lock it, find the checkpoint to resume from, see whether code changed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs import Config
from record import checkpoints, parents, runlog


def open_run(
    config: Config, hashes: Mapping[str, str], hardware: Mapping[str, str]
) -> tuple[runlog.RunLog, Path | None]:
    """The record of the run, and the checkpoint that it resumes from (None: from step 0).

    hashes: of the data. They are recorded, as is the parent. hardware: "device" and "dtype" of
    this launch.

    Raises:
        RecordError: another process runs it, the folder cannot be written, or it holds another
            run's checkpoint, only torn ones, or a record that does not fit; or the run began on
            other data, or went on on other hardware.
    """
    directory = config.directory
    where = config.log.model_dump(include={"project", "entity", "group", "job_type"})
    wandb = runlog.WandbOptions(mode=config.log.wandb, name=config.run_name, **where)
    try:
        lock = runlog.lock(directory, wait_seconds=30)
        checkpoint, offset = checkpoints.newest_whole(directory / "checkpoints"), None
        if checkpoint:
            offset = checkpoints.load(checkpoint, config.run_name, mmap=True).progress.log_offset
            record = runlog.read_record(directory) or {}
            runlog.require_same(directory, record.get("hashes", {}), hashes)
            _require_same_hardware(record, hardware, config.launch.accept_other_hardware)
        log = runlog.RunLog(
            directory,
            config_toml=config.toml(),
            config=config.table(),
            resume_offset=offset,
            wandb=wandb,
            tensorboard=config.log.tensorboard,
            held=lock,
        )
        parent = parents.facts(config)
        log.record(
            hashes={**hashes, **log.facts.get("hashes", {})},
            **({"parent": parent} if parent else {}),
        )
    except OSError as error:
        raise runlog.RecordError(
            f"cannot write the run's folder {directory}: {error}; give another with --log.dir"
        ) from None
    return log, checkpoint


def _require_same_hardware(
    record: Mapping[str, Any], hardware: Mapping[str, str], accepted: bool
) -> None:
    """Compare with the latest launch, or the trunk that the run branched from.

    Raises:
        RecordError: the hardware differs, and is not `accepted`.
    """
    known = [launch.get("environment", {}) for launch in record.get("launches", [])]
    before = next((e for e in reversed(known) if e), record.get("branched_from", {}))
    changes = {k: (before.get(k, new), new) for k, new in hardware.items()}
    if not (odd := [f"{k} {old} to {new}" for k, (old, new) in changes.items() if old != new]):
        return
    if not accepted:
        raise runlog.RecordError(
            f"this run would go on with {' and '.join(odd)} changed, so its numbers too; resume it"
            " where it ran before, or accept that with --launch.accept_other_hardware true"
        )
    print(f"warning: the run goes on, as accepted, from {' and '.join(odd)}", flush=True)


def former_folder(config: Config) -> str | None:
    """A line if this new run has a folder that an earlier version made under another name."""
    old = config.directory.with_name(config.former_name)
    if config.directory.exists() or not old.exists():
        return None
    return (
        f"{old} is this run by an earlier version, whose names held data.dir and the micro-batch;"
        " this version starts it anew: to finish that one, use the version that began it"
    )


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
