"""The shards of a split: find them, check each one, map them into memory."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.formats import FORMATS, DataError, map_shard
from data.index import Scan, scan_all
from storage import read_json

SPLITS = ("train", "val", "test")

META = "meta.json"  # what a finished directory holds
PROGRESS = "progress.json"  # what an unfinished one holds, and how to go on


class MissingShards(DataError):  # noqa: N818  (it reads as what it is)
    """The directory has no shard of the requested split."""


@dataclass(frozen=True)
class Tokens:
    """One split: its shards, each a read-only uint16 view of the tokens without the header."""

    directory: Path
    split: str
    paths: list[Path]
    shards: list[np.memmap]
    vocab_size: int

    @property
    def num_tokens(self) -> int:
        """Tokens in all shards together."""
        return sum(len(shard) for shard in self.shards)

    def scan(self, again: bool = False) -> list[str]:
        """SHA-256 (hex) of the tokens of each shard, once all are known to be what they should.

        `index.json` beside the shards keeps what was read. again: read all, whatever it says.

        Raises:
            DataError: a token id is not below vocab_size, or the tokens are not those that
                `python -m data` has written; the message names the shard.
        """
        scans = scan_all(self.directory, self.paths, self.shards, again)
        written = _written_hashes(self.directory)
        for path, found in zip(self.paths, scans, strict=True):
            _refuse_other_tokens(path, found, self.vocab_size, written.get(path.name))
        return [found.sha256 for found in scans]


def open_split(
    directory: str | Path, split: str, *, vocab_size: int, format: str = "auto", scan: bool = True
) -> Tokens:
    """Find, check and map the shards of `split`, one of SPLITS, in the order of their names.

    `format` is "auto" (llm.c's .bin and .npy, told apart by extension) or "nanogpt".
    Every shard's header, length and dtype are checked, and its tokens as `Tokens.scan` does, which
    reads every byte the first time. scan: False to leave that to the caller.

    Raises:
        MissingShards: there are no shards of this split.
        DataError: a shard is bad; the message names it and the reason.
    """
    directory = Path(directory)
    if split not in SPLITS:
        raise DataError(f"split {split!r} is unknown; valid: {', '.join(SPLITS)}")
    if format not in FORMATS:
        raise DataError(f"data.format {format!r} is unknown; valid: {', '.join(FORMATS)}")
    _refuse_unfinished(directory)
    paths = find_shards(directory, split, format)
    shards = _map_all(paths, format)
    tokens = Tokens(directory, split, paths, shards, vocab_size)
    if scan:
        tokens.scan()
    return tokens


def open_splits(
    directory: str | Path, *, vocab_size: int, format: str = "auto", scan: bool = True
) -> dict[str, Tokens]:
    """train and val, and test where there is one: other projects' folders have none.

    Raises:
        DataError: as `open_split`.
    """
    found: dict[str, Tokens] = {}
    how: dict[str, Any] = {"vocab_size": vocab_size, "format": format, "scan": scan}
    for split in SPLITS:
        try:
            found[split] = open_split(directory, split, **how)
        except MissingShards:
            if split != "test":
                raise
    return found


def find_shards(directory: Path, split: str, format: str = "auto") -> list[Path]:
    """The files of `directory` whose names carry `split` as a word, sorted by name.

    Raises:
        MissingShards: there are none.
        DataError: two formats lie side by side.
    """
    extensions = (".bin",) if format == "nanogpt" else (".bin", ".npy")
    candidates = shard_files(directory, extensions)
    found = [path for path in candidates if _split_of(path) == split]
    if not found:
        raise MissingShards(_missing(directory, split, extensions, candidates))
    kinds = {path.suffix for path in found}
    if len(kinds) > 1:
        raise DataError(
            f"{directory} holds split {split} both as .bin and as .npy, perhaps the same tokens"
            " twice; move one kind to a directory of its own"
        )
    return found


def shard_files(directory: Path, extensions: tuple[str, ...] = (".bin", ".npy")) -> list[Path]:
    """Every file of `directory` with one of `extensions`, sorted by name; hidden ones excluded."""
    if not directory.is_dir():
        return []
    files = (path for path in directory.iterdir() if not path.name.startswith("."))
    return sorted(path for path in files if path.suffix in extensions and path.is_file())


def _split_of(path: Path) -> str | None:
    """The split in a file name, as a whole word: `a_val_000.bin`, `train.bin`, `x-val.npy`.

    `restrained.bin` has none. A name with both train and val is refused; beside one of them, test
    is a word like any other.
    """
    words = {word for word in re.split(r"[^a-z]+", path.stem.lower()) if word in SPLITS}
    if words >= {"train", "val"}:
        raise DataError(f"{path} names both train and val; rename it so that it names one of them")
    return next((split for split in SPLITS if split in words), None)


def _missing(directory: Path, split: str, extensions: tuple[str, ...], others: list[Path]) -> str:
    looked_for = ", ".join(f"*_{split}_*{end}, {split}{end}" for end in extensions)
    if not directory.is_dir():
        state = f"the directory {directory} does not exist"
    elif others:
        state = (
            f"none of the {len(others)} shards in {directory} ({others[0].name}, ...) is named so"
        )
    else:
        state = f"the directory {directory} holds no shards"
    return (
        f"no shards for split {split}: {state} (looked for {looked_for}); make some with"
        " `python -m data fineweb --tokens 1B`, or run the quickstart, which needs no network,"
        " with `make train`"
    )


def _refuse_unfinished(directory: Path) -> None:
    if (directory / META).exists():
        return
    progress = read_json(directory / PROGRESS)
    if progress is not None:
        raise DataError(
            f"{directory} is not finished; run `{progress.get('command', 'python -m data ...')}`"
            " again: it goes on where it stopped"
        )


def _map_all(paths: list[Path], format: str) -> list[np.memmap]:
    _allow_open_files(len(paths))
    try:
        return [map_shard(path, format) for path in paths]
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise DataError(
                f"{error.filename or paths[0].parent} cannot be read: {error}"
            ) from None
        raise DataError(
            f"{len(paths)} shards are more files than this process may open; raise the limit with"
            " `ulimit -n`"
        ) from None


def _allow_open_files(shards: int) -> None:
    """Lift the soft limit (often 1024): each mapping holds a file open; FineWeb-100B has 1,030."""
    import resource  # absent on Windows, where nothing here runs

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = shards + 512  # sockets, logs and libraries of the rest of the process
    if soft != resource.RLIM_INFINITY and soft < wanted:
        ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, ceiling), hard))


def _refuse_other_tokens(path: Path, found: Scan, vocab_size: int, written: str | None) -> None:
    if found.largest_id >= vocab_size:
        raise DataError(
            f"{path}: holds token id {found.largest_id}, but vocab_size is {vocab_size}; set"
            f" model.vocab_size to at least {found.largest_id + 1}, or use shards of that"
            " vocabulary"
        )
    if written and written != found.sha256:
        raise DataError(
            f"{path}: its tokens have changed since they were written (sha256"
            f" {found.sha256[:8]}, in {META} {written[:8]}); copy the shard again, or remove"
            f" {path.parent} and make it again"
        )


def _written_hashes(directory: Path) -> dict[str, str]:
    """By name of a shard the hash that `python -m data` has noted; earlier versions noted none."""
    meta = read_json(directory / META) or {}
    try:
        shards = [shard for split in meta["splits"].values() for shard in split["shards"]]
        return {shard["name"]: shard["sha256"] for shard in shards if shard.get("sha256")}
    except (AttributeError, KeyError, TypeError):  # of another program
        return {}
