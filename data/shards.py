"""Shard formats: find the token files of a split, check each one, map them into memory.

Three formats are read as their own projects write them, all little-endian uint16:

    bin      llm.c, modded-nanogpt: 256 int32 (magic 20240520, version 1, token count), then tokens
    npy      build-nanogpt: a one-dimensional NumPy array file
    nanogpt  nanoGPT: a .bin of nothing but tokens; since it cannot be told from garbage, it must
             be asked for by name

`python -m data` writes the first.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.index import Scan, scan_all
from storage import read_json, write_atomically

MAGIC = 20240520  # llm.c's number for "GPT-2 tokens as uint16"
LLAMA3_MAGIC = 20240801  # llm.c's number for uint32 tokens
VERSION = 1
HEADER_BYTES = 256 * 4
TOKEN = np.dtype("<u2")
MAX_VOCAB_SIZE = 2**16  # what uint16 can hold

_LOOKED_AT = 2**16  # numbers at the beginning of a headerless file
_ENOUGH = 16  # integers, to tell them from uint16 ones

FORMATS = ("auto", "nanogpt")
SPLITS = ("train", "val", "test")

META = "meta.json"  # what a finished directory holds
PROGRESS = "progress.json"  # what an unfinished one holds, and how to go on


class DataError(ValueError):
    """A mistake that the user can mend; the message is one line."""


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


def write_shard(path: Path, tokens: np.ndarray) -> None:
    """Write uint16 `tokens` of shape (n,) as a `bin` shard; the file appears whole or not at all.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    assert tokens.dtype == TOKEN, tokens.dtype
    assert len(tokens) < 2**31, "the header's count is an int32"
    header = np.zeros(256, dtype="<i4")
    header[:3] = MAGIC, VERSION, len(tokens)
    write_atomically(path, [header.tobytes(), np.ascontiguousarray(tokens).data.cast("B")])


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


def map_shard(path: Path, format: str = "auto") -> np.memmap:
    """The tokens of one shard as a read-only uint16 view of shape (n,).

    Raises:
        DataError: the file is not what its format says; the message gives the reason.
        OSError: the file cannot be read.
    """
    if path.suffix == ".npy":
        return _map_npy(path)
    if format == "nanogpt":
        return _map_headerless(path)
    return _map_bin(path)


def _map_bin(path: Path) -> np.memmap:
    size = path.stat().st_size
    header = np.fromfile(path, dtype="<i4", count=256)
    if len(header) == 0 or header[0] != MAGIC:
        raise DataError(_not_bin(path, size, header))
    if len(header) < 256:
        raise DataError(f"{path}: truncated inside the header, {size} of {HEADER_BYTES} bytes")
    if header[1] != VERSION:
        raise DataError(f"{path}: header version {header[1]}, this reader knows version {VERSION}")
    count = int(header[2])
    if count <= 0:
        raise DataError(f"{path}: the header promises {count} tokens; remove the shard")
    expected = HEADER_BYTES + count * TOKEN.itemsize
    if size != expected:
        raise DataError(_wrong_length(path, size, expected, count))
    return np.memmap(path, dtype=TOKEN, mode="r", offset=HEADER_BYTES, shape=(count,))


def _not_bin(path: Path, size: int, header: np.ndarray) -> str:
    if size == 0:
        return f"{path}: empty file; remove it"
    if size >= 4 and header[0] == LLAMA3_MAGIC:
        return f"{path}: llm.c's uint32 Llama-3 tokens; only uint16 tokens (GPT-2) are read"
    return (
        f"{path}: no llm.c header (magic {MAGIC}); if it is nanoGPT's headerless uint16 file, say"
        " so with --data.format nanogpt"
    )


def _wrong_length(path: Path, size: int, expected: int, count: int) -> str:
    if size < expected:
        fault = f"truncated, {expected - size:,} bytes are missing"
    else:
        fault = f"{size - expected:,} bytes too many"
    return (
        f"{path}: {fault} (the header promises {count:,} tokens, {expected:,} bytes; the file has"
        f" {size:,}); download or write the shard again"
    )


def _map_npy(path: Path) -> np.memmap:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: truncated or not a .npy array ({reason})") from None
    if not isinstance(array, np.memmap):  # np.load tells the two apart by their content
        array.close()
        raise DataError(f"{path}: an .npz archive, not a .npy array; save its tokens with np.save")
    if array.dtype != TOKEN or array.ndim != 1:
        raise DataError(
            f"{path}: array of {array.dtype} with shape {array.shape}; a shard is one-dimensional"
            " and uint16: tokens.astype(np.uint16)"
        )
    if len(array) == 0:
        raise DataError(f"{path}: no tokens; remove the shard")
    extra = path.stat().st_size - array.offset - array.nbytes
    if extra:
        raise DataError(f"{path}: {extra:,} bytes too many after {len(array):,} tokens")
    return array


def _map_headerless(path: Path) -> np.memmap:
    size = path.stat().st_size
    if size == 0 or size % TOKEN.itemsize:
        raise DataError(f"{path}: {size:,} bytes are not a whole number of uint16 tokens")
    start = np.fromfile(path, dtype="<i4", count=1)
    if len(start) and start[0] == MAGIC:
        raise DataError(
            f"{path}: it has llm.c's header, so it is not nanoGPT's; leave --data.format at auto"
        )
    tokens = np.memmap(path, dtype=TOKEN, mode="r")
    if bits := _wider(tokens[:_LOOKED_AT]):
        raise DataError(
            f"{path}: looks like {bits}-bit tokens, because of {bits // 16} uint16 numbers only the"
            " first is not small; nanoGPT's format is uint16: tokens.astype(np.uint16)"
        )
    return tokens


def _wider(tokens: np.ndarray) -> int | None:
    """64 or 32, if the numbers are parts of integers of so many bits; None for uint16.

    The upper parts of token ids are 0, or below 4 in a vocabulary of up to 262,144. In text, any
    two positions hold numbers of the same size.
    """
    for bits in (64, 32):
        parts = bits // 16
        rows = tokens[: len(tokens) // parts * parts].reshape(-1, parts)
        if len(rows) >= _ENOUGH and int(rows[:, 0].max()) > 64 * int(rows[:, 1:].max()):
            return bits
    return None


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
