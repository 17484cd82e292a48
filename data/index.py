"""What reading whole shards has found, kept in `index.json` beside them.

Reading every token of a large data set takes minutes from a network disk, so each file is read
once: for its largest token id, and for a hash of its tokens. Name, size and times of change tell
whether a file is still the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from storage import read_json, write_json

INDEX = "index.json"
KIND = "largest token ids"  # marks our index.json; one of another program is left alone
_READERS = 8  # threads, each with a shard
_LONG = 2**31  # bytes of new shards from which on a line says that they are read


class Scan(NamedTuple):
    """What one pass over the tokens of a shard finds."""

    largest_id: int
    sha256: str  # hex, of the tokens as little-endian uint16, without a header


def scan(tokens: np.ndarray) -> Scan:
    """Read all `tokens`, uint16 of shape (n,). Threads may share the work: both parts free the GIL.

    sha256 makes 1.0 GB/s on a core that has instructions for it, blake2b 0.4; max makes 25.
    """
    largest, digest = 0, hashlib.sha256()
    for piece in in_pieces(tokens, 2**20):  # 2 MiB: the second look finds it in a cache
        largest = max(largest, int(piece.max()))
        digest.update(np.ascontiguousarray(piece).data)
    return Scan(largest, digest.hexdigest())


def in_pieces(tokens: np.ndarray, size: int = 2**24) -> Iterator[np.ndarray]:
    """Views of at most `size` tokens, so that a scan of a large shard needs little memory."""
    for start in range(0, len(tokens), size):
        yield tokens[start : start + size]


def scan_all(
    directory: Path, paths: Sequence[Path], shards: Sequence[np.ndarray], again: bool = False
) -> list[Scan]:
    """Of each shard of one directory; reads those that its index does not know, or all `again`."""
    index = ScanIndex(directory)
    known = [None if again else index.known(*pair) for pair in zip(paths, shards, strict=True)]
    new = [i for i, found in enumerate(known) if found is None]
    if (size := sum(shards[i].nbytes for i in new)) > _LONG:
        what = f"{len(new):,} shards in {directory}, {size / 1e9:.0f} GB"
        print(f"reading {what}, to check them once", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(_READERS) as readers:
        scans = dict(zip(new, readers.map(scan, (shards[i] for i in new)), strict=True))
    for i, found in scans.items():
        index.record(paths[i], shards[i], found)
    index.save()
    return [found or scans[i] for i, found in enumerate(known)]


class ScanIndex:
    """Scans of the shards of one directory.

    Several processes may use it at once: each reads the file, adds what it has scanned and replaces
    the whole. At worst one overwrites the entries of another, and those shards are scanned again.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / INDEX
        self._new: dict[str, dict[str, Any]] = {}
        self._known = _files(read_json(self.path))

    def known(self, path: Path, tokens: np.ndarray) -> Scan | None:
        """The scan of the shard `path`, whose tokens are `tokens`; None if it is new or changed.

        Indexes of earlier versions have no hashes: their shards are new.
        """
        entry, stamp = self._known.get(path.name, {}), _stamp(path, tokens)
        largest, sha256 = entry.get("largest_id"), entry.get("sha256")
        same = {key: entry.get(key) for key in stamp} == stamp
        if same and isinstance(largest, int) and isinstance(sha256, str):
            return Scan(largest, sha256)
        return None

    def record(self, path: Path, tokens: np.ndarray, found: Scan) -> None:
        """Add the scan of a shard."""
        self._new[path.name] = {**_stamp(path, tokens), **found._asdict()}

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


def _files(index: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    if index is None or index.get("kind") != KIND or not isinstance(index.get("files"), dict):
        return {}
    return {name: entry for name, entry in index["files"].items() if isinstance(entry, dict)}
