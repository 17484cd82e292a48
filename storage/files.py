"""Files that are either whole or absent, whenever the process or the machine dies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any


def publish(file: IO[bytes], path: Path) -> None:
    """Sync an open file and rename it to `path`; a reader or a crash sees the old or the new one.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    file.flush()
    os.fsync(file.fileno())  # without it a power cut can leave the new name on no bytes
    Path(file.name).replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def write_atomically(path: Path, parts: str | Iterable[bytes | memoryview]) -> None:
    """Write text, or `parts` one after the other; `path` keeps its old content until the last byte.

    The temporary file carries the process id, so several processes may write the same path at
    once: the last one wins, and every reader sees one whole file.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for part in [parts.encode()] if isinstance(parts, str) else parts:
                file.write(part)
            publish(file, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(directory: Path) -> None:
    """Remove what interrupted writes left; call it while holding the folder's lock.

    Raises:
        OSError: the folder cannot be written.
    """
    for leftover in directory.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as readable JSON, atomically.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    write_atomically(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no file, or no JSON object in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
