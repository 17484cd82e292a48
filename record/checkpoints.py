"""Files of saved state that survive crashes: written whole or not at all, checked when read.

A checkpoint is step-<step>-<first 16 hex digits of the sha256 of its content>.pt: the name tells
whether the content is whole, so no second file can get out of step with the first.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record.runlog import RecordError
from storage import publish


class _HashingFile:
    """Writes through to a file and hashes on the way, so that nothing is read back."""

    def __init__(self, file: Any) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, chunk: bytes) -> int:
        self.digest.update(chunk)
        try:
            return self.file.write(chunk)
        except OSError as error:  # torch.save reports it without its cause
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save(folder: Path, step: int, keep: int, write: Callable[[Any], object]) -> Path:
    """`write(file)` beside the others, sync, rename, then remove all but the last `keep`.

    Raises OSError where it cannot be written (a full disk, say): the earlier ones stay as they are.
    """
    folder.mkdir(exist_ok=True)
    partial = folder / "partial"
    hashing = None
    try:
        with partial.open("wb") as file:
            hashing = _HashingFile(file)
            write(hashing)
            path = folder / f"step-{step:08d}-{hashing.digest.hexdigest()[:16]}.pt"
            publish(file, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        cause = (hashing and hashing.error) or error
        raise OSError(f"cannot write a checkpoint in {folder}: {cause}") from error
    others = [old for old in found(folder) if old != path]
    for old in others[keep - 1 :]:
        old.unlink()
    return path


def found(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("step-*.pt"), key=lambda p: (p.name[:13], p.stat().st_mtime_ns))[::-1]


def newest_whole(folder: Path) -> Path | None:
    """The newest whose content matches its name; torn or corrupt ones are named on stderr.

    Errors: RecordError where there are some and none is whole.
    """
    for path in found(folder):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if path.stem.endswith(digest[:16]):
            return path
        torn = path.rename(path.with_suffix(".torn"))  # out of the way of those that are whole
        print(f"warning: {torn} is torn or corrupt; trying the one before it", file=sys.stderr)
    if any(folder.glob("*.torn")):
        raise RecordError(
            f"no checkpoint in {folder} is whole; remove {folder.parent} to start again"
        )
    return None
