"""Formats of shards: read, checked and mapped into memory; and written.

Three formats are read as their own projects write them, all little-endian uint16:

    bin      llm.c, modded-nanogpt: 256 int32 (magic 20240520, version 1, token count), then tokens
    npy      build-nanogpt: a one-dimensional NumPy array file
    nanogpt  nanoGPT: a .bin of nothing but tokens; since it cannot be told from garbage, it must
             be asked for by name

`python -m data` writes the first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from storage import write_atomically

MAGIC = 20240520  # llm.c's number for "GPT-2 tokens as uint16"
LLAMA3_MAGIC = 20240801  # llm.c's number for uint32 tokens
VERSION = 1
HEADER_BYTES = 256 * 4
TOKEN = np.dtype("<u2")
MAX_VOCAB_SIZE = 2**16  # what uint16 can hold

_LOOKED_AT = 2**16  # numbers at the beginning of a headerless file
_ENOUGH = 16  # integers, to tell them from uint16 ones

FORMATS = ("auto", "nanogpt")


class DataError(ValueError):
    """A mistake that the user can mend; the message is one line."""


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
