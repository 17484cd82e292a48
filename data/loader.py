"""Which tokens at which step: a pure function of (data_seed, step), whatever the number of ranks.

A shard is cut into windows of `block_size` tokens. Each is read with one more token, its last
target, which is also the first input of the next window. Windows never cross shards; the last
tokens of a shard that fill no window are not used. An epoch visits every window once, in an order
drawn from (data_seed, epoch).
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.formats import TOKEN, DataError
from data.permutation import permute
from data.prefetch import Prefetcher, as_tensor
from data.shards import Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from data.hellaswag import HellaSwag


class Windows:
    """All windows of a split, numbered through the shards in order."""

    def __init__(self, tokens: Tokens, block_size: int) -> None:
        if block_size < 1:
            raise DataError(f"block_size is {block_size}; it must be at least 1 token")
        self.tokens = tokens
        self.block_size = block_size
        counts = [(len(shard) - 1) // block_size for shard in tokens.shards]
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._starts = self._ends - counts

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, index: int) -> tuple[Path, int]:
        """The file that holds a window, and the number of its first token there."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return self.tokens.paths[shard], (index - int(self._starts[shard])) * self.block_size

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The windows `indices` (integers, shape (rows,)) as uint16 (rows, block_size + 1)."""
        rows = np.empty((len(indices), self.block_size + 1), dtype=TOKEN)
        indices = indices.astype(np.int64)
        shards = np.searchsorted(self._ends, indices, side="right")
        offsets = (indices - self._starts[shards]) * self.block_size
        length = self.block_size + 1
        places = [
            (self.tokens.shards[shard], offset)
            for shard, offset in zip(shards.tolist(), offsets.tolist(), strict=True)
        ]
        for shard, offset in places:
            _ask_for(shard, offset, length)
        for row, (shard, offset) in zip(rows, places, strict=True):
            row[:] = shard[offset : offset + length]
        return rows


def _ask_for(shard: np.memmap, offset: int, length: int) -> None:
    """Have the system begin to read these tokens; this does not wait for them.

    So a slow disk reads the windows of a batch side by side. One page fault after the other would
    wait for each of them, and read 128 kB around it.
    """
    file = shard.base
    if isinstance(file, mmap.mmap):
        start = shard.offset % mmap.ALLOCATIONGRANULARITY + offset * TOKEN.itemsize
        page = start - start % mmap.PAGESIZE
        file.madvise(mmap.MADV_WILLNEED, page, start - page + length * TOKEN.itemsize)


class Loader:
    """Training batches. Resume needs nothing but the step.

    `batch_size` is the global batch in sequences; rank r of `world_size` takes rows
    r * batch_size / world_size and on. `data_seed` is an integer from 0 to 2**64 - 1.

    Raises:
        DataError: the ranks cannot share the batch equally, or the split is smaller than a batch.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        block_size: int,
        batch_size: int,
        data_seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise DataError(
                f"a global batch of {batch_size} sequences cannot be shared by {world_size} ranks;"
                f" make it a multiple of {world_size}"
            )
        if not 0 <= rank < world_size:
            raise DataError(f"rank {rank} is not in 0 ... {world_size - 1}")
        if not 0 <= data_seed < 2**64:
            raise DataError(f"data_seed is {data_seed}; it must be from 0 to 2**64 - 1")
        self.windows = Windows(tokens, block_size)
        if len(self.windows) < batch_size:
            raise DataError(_too_small(tokens, len(self.windows), block_size, batch_size))
        self.batch_size = batch_size
        self.data_seed = data_seed
        self.rank = rank
        self.world_size = world_size

    def epoch(self, step: int) -> float:
        """How many times the run has passed over the split before `step`."""
        return step * self.batch_size / len(self.windows)

    def global_batch(self, step: int) -> np.ndarray:
        """The batch of `step` (from 0) as uint16 (batch_size, block_size + 1)."""
        return self._rows(step, 0, self.batch_size)

    def rank_batch(self, step: int) -> np.ndarray:
        """This rank's rows of `global_batch(step)`: (batch_size / world_size, block_size + 1)."""
        share = self.batch_size // self.world_size
        return self._rows(step, self.rank * share, (self.rank + 1) * share)

    def batches(self, start_step: int, *, pin_memory: bool = False) -> Prefetcher:
        """`rank_batch` of `start_step` and on, without end, prepared ahead on a thread."""
        return Prefetcher(self.rank_batch, start_step, pin_memory=pin_memory)

    def _rows(self, step: int, start: int, stop: int) -> np.ndarray:
        return self.windows.take(self._indices(step, start, stop))

    def window_ids(self, step: int) -> np.ndarray:
        """The numbers of the windows of `global_batch(step)`, (batch_size,)."""
        return self._indices(step, 0, self.batch_size)

    def _indices(self, step: int, start: int, stop: int) -> np.ndarray:
        if step < 0:
            raise DataError(f"step is {step}; steps count from 0")
        n = len(self.windows)
        first = step * self.batch_size
        positions = np.arange(first + start, first + stop, dtype=np.uint64)
        epochs, places = positions // np.uint64(n), positions % np.uint64(n)
        indices = np.empty_like(places)
        for epoch in np.unique(epochs):  # one, or two where the batch straddles an epoch's end
            here = epochs == epoch
            indices[here] = permute(places[here], n, seed=self.data_seed, epoch=int(epoch))
        return indices


class HeldOut:
    """The first `num_tokens` targets of a split, the same ones for any number of ranks.

    They are the split's first `num_tokens / block_size` windows, without shuffling. Each rank has a
    contiguous share, `start` to `stop`; if the ranks do not divide the windows, shares differ by
    one.

    Raises:
        DataError: `num_tokens` is not a multiple of `block_size`, or exceeds the split.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        block_size: int,
        num_tokens: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.windows = Windows(tokens, block_size)
        available = len(self.windows) * block_size
        if num_tokens < block_size or num_tokens % block_size:
            raise DataError(
                f"eval.tokens = {num_tokens} is not a multiple of block_size {block_size}; give"
                f" --eval.tokens {max(1, num_tokens // block_size) * block_size}"
            )
        if num_tokens > available:
            raise DataError(
                f"eval.tokens = {num_tokens}, but split {tokens.split} of {tokens.directory} has"
                f" {available} in whole sequences of {block_size}; "
                f"{f'give --eval.tokens {available}, or ' if available else ''}make more data"
            )
        if not 0 <= rank < world_size:
            raise DataError(f"rank {rank} is not in 0 ... {world_size - 1}")
        self.num_tokens = num_tokens
        self.sequences = num_tokens // block_size
        self.start = self.sequences * rank // world_size
        self.stop = self.sequences * (rank + 1) // world_size

    def batches(self, rows: int) -> Iterator[tuple[slice, Tensor]]:
        """This rank's share in parts: their place among all sequences, and int64 tensors (at most
        `rows`, block_size + 1); the last is short.

        Nothing is yielded on a rank without a share (fewer sequences than ranks).
        """
        for start in range(self.start, self.stop, rows):
            stop = min(start + rows, self.stop)
            yield slice(start, stop), as_tensor(self.windows.take(np.arange(start, stop)))

    def hash(self) -> str:
        """SHA-256 (hex) of all its sequences: losses on different texts do not compare."""
        digest = hashlib.sha256()
        for start in range(0, self.sequences, 4096):
            indices = np.arange(start, min(start + 4096, self.sequences))
            digest.update(self.windows.take(indices).tobytes())
        return digest.hexdigest()


def held_out(
    splits: Mapping[str, Tokens], *, block_size: int, num_tokens: int, **ranks: int
) -> dict[str, HeldOut]:
    """`num_tokens` of val; of test, where there is one, as many or all that it has.

    ranks: rank and world_size, as HeldOut takes them.

    Raises:
        DataError: as HeldOut; test does not hold one sequence.
    """
    found = {}
    for split in [name for name in ("val", "test") if name in splits]:
        tokens = splits[split]
        available = len(Windows(tokens, block_size)) * block_size
        if split == "test" and not available:
            raise DataError(
                f"split test of {tokens.directory} has {tokens.num_tokens} tokens, too few for one"
                f" sequence of {block_size}; remove its shards, or make more data"
            )
        wanted = min(num_tokens, available) if split == "test" else num_tokens
        found[split] = HeldOut(tokens, block_size=block_size, num_tokens=wanted, **ranks)
    return found


def listed(loader: Loader, texts: Mapping[str, HeldOut]) -> dict[str, str]:
    """What is known of the data without reading them: by "shard NAME" how many tokens it has."""
    return {
        f"shard {path.name}": f"{len(shard):,} tokens"
        for tokens in _splits(loader, texts)
        for path, shard in zip(tokens.paths, tokens.shards, strict=True)
    }


def data_hashes(
    loader: Loader, texts: Mapping[str, HeldOut], quiz: HellaSwag | None, scan: bool
) -> dict[str, str]:
    """Hashes of what a run sees: of its first "batches", and of each held-out text by its split.

    quiz: its questions have one too, "hellaswag".

    scan: also of all shards, "data", which checks them as `Tokens.scan` does.

    Raises:
        DataError: as `Tokens.scan`.
    """
    everything = {"data": fingerprint(_splits(loader, texts))} if scan else {}
    hashes = {"batches": first_batches_hash(loader)}
    hashes |= {"hellaswag": quiz.hash} if quiz else {}
    return hashes | {split: text.hash() for split, text in texts.items()} | everything


def fingerprint(splits: Iterable[Tokens]) -> str:
    """SHA-256 (hex) of the hashes of all shards, with their splits, in their order."""
    digest = hashlib.sha256()
    for tokens in splits:
        for sha256 in tokens.scan():
            digest.update(f"{tokens.split} {sha256}\n".encode())
    return digest.hexdigest()


def _splits(loader: Loader, texts: Mapping[str, HeldOut]) -> list[Tokens]:
    """train, val, and test where there is one."""
    return [loader.windows.tokens, *(text.windows.tokens for text in texts.values())]


def first_batches_hash(loader: Loader, steps: int = 3) -> str:
    """SHA-256 (hex) of the first global batches: runs with different hashes see different data."""
    digest = hashlib.sha256()
    for step in range(steps):
        digest.update(loader.global_batch(step).tobytes())
    return digest.hexdigest()


def _too_small(tokens: Tokens, sequences: int, block_size: int, batch_size: int) -> str:
    return (
        f"split {tokens.split} of {tokens.directory} has {sequences:,} sequences of {block_size}"
        f" tokens, one batch takes {batch_size:,}; make --train.batch_tokens or"
        " --model.block_size smaller, or the data larger"
    )
