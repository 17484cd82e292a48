"""Files that are either whole or absent, whenever the process or the machine dies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write `parts` one after the other to `path`, which keeps its old content until the last byte.

    The temporary file carries the process id, so that several processes may write the same path
    at once: the last one wins, and every reader sees one whole file. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut can leave the new name on no bytes
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable before anything that is written later."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as readable JSON, atomically. Raises OSError."""
    write_atomically(path, [(json.dumps(value, indent=1) + "\n").encode()])


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no file, no JSON or no object in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
