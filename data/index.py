"""The result of scanning shards, kept in `index.json` beside them.

Reading every token of a large data set to find the largest id takes minutes from a network disk, so
each file is scanned once. Name, size and modification time tell whether a file is still the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from storage import read_json, write_json

INDEX = "index.json"
KIND = "largest token ids"  # marks our index.json; one of another program is left alone


class ScanIndex:
    """Largest token id per shard of one directory.

    Several processes may use it at once: each reads the file, adds what it has scanned and replaces
    the whole. At worst one overwrites the entries of another, and those shards are scanned again.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / INDEX
        self._new: dict[str, dict[str, int]] = {}
        self._known = _files(read_json(self.path))

    def largest_id(
        self, path: Path, tokens: np.ndarray, *, scan: Callable[[np.ndarray], int]
    ) -> int:
        """The largest id of the shard `path`, whose tokens are `tokens`; scans what is new."""
        entry = self._known.get(path.name, {})
        stamp = _stamp(path, tokens)
        if {key: entry.get(key) for key in stamp} != stamp or "largest_id" not in entry:
            entry = self._new[path.name] = {**stamp, "largest_id": scan(tokens)}
        return entry["largest_id"]

    def record(self, path: Path, tokens: np.ndarray, largest_id: int) -> None:
        """Add the entry of a shard that a writer has just written."""
        self._new[path.name] = {**_stamp(path, tokens), "largest_id": largest_id}

    def save(self) -> None:
        """Write the new entries; if the directory is read-only, the next start scans again."""
        if not self._new:
            return
        current = read_json(self.path)
        if current is not None and current.get("kind") != KIND:
            return
        files = {**_files(current), **self._new}
        present = {name: files[name] for name in sorted(files) if self._exists(name)}
        with contextlib.suppress(OSError):
            write_json(self.path, {"kind": KIND, "files": present})

    def _exists(self, name: str) -> bool:
        return (self.path.parent / name).exists()


def _stamp(path: Path, tokens: np.ndarray) -> dict[str, int]:
    # The count is part of the stamp: read in another format, the same file has another count.
    status = path.stat()
    times = {"mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}
    return {"size": status.st_size, **times, "tokens": len(tokens)}


def _files(index: dict[str, Any] | None) -> dict[str, dict[str, int]]:
    if index is None or index.get("kind") != KIND or not isinstance(index.get("files"), dict):
        return {}
    return {
        name: entry
        for name, entry in index["files"].items()
        if isinstance(entry, dict) and all(isinstance(value, int) for value in entry.values())
    }
