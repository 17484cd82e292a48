"""The text that weights are judged on: the first sequences of a split, or of what a run met."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import Tensor

from configs import Config, ConfigError
from data import HeldOut, open_split
from data.loader import Loader, Windows
from data.prefetch import as_tensor
from train_gpt2 import GPT


@dataclass(frozen=True)
class Batch:
    """Some sequences. rows: int64 (sequences, block_size + 1). text: their sha256.

    split: train, val, or "seen" for those of train that the run was trained on.
    """

    split: str
    rows: Tensor
    text: str

    @property
    def tokens(self) -> int:
        """That are predicted."""
        return len(self.rows) * (self.rows.shape[1] - 1)


def first_sequences(config: Config, split: str, tokens: int) -> Batch:
    """The first sequences of a split of the run's data: as many whole ones as `tokens` hold.

    Raises:
        ConfigError: they hold none, or more than there are; one line.
        DataError: the shards are gone or damaged.
    """
    data, shape = config.data, config.model
    block = shape.block_size
    if tokens < block:
        raise ConfigError(f"--tokens {tokens} is less than one sequence of {block}; give more")
    shards = open_split(data.dir, split, vocab_size=shape.vocab_size, format=data.format)
    available = len(Windows(shards, block)) * block
    if tokens > available:
        raise ConfigError(
            f"--tokens {tokens}: split {split} of {data.dir} has {available} in whole sequences of"
            f" {block}; give at most that many"
        )
    text = HeldOut(shards, block_size=block, num_tokens=tokens - tokens % block)
    ((_, rows),) = text.batches(text.sequences)
    return Batch(split, rows, text.hash())


def seen_sequences(config: Config, tokens: int, step: int) -> Batch:
    """The first sequences that the run was trained on, in its own order, by update `step`.

    Runs with the same data_seed have met the same ones, whatever their batch.

    Raises:
        ConfigError: `tokens` hold none, or more than the run had met; one line.
        DataError: the shards are gone or damaged.
    """
    data, shape, block = config.data, config.model, config.model.block_size
    shards = open_split(data.dir, "train", vocab_size=shape.vocab_size, format=data.format)
    met = min(step * config.train.batch_tokens, len(Windows(shards, block)) * block)
    if not block <= tokens <= met:
        raise ConfigError(
            f"--tokens {tokens}: by update {step} the run has met {met} tokens of its training"
            f" split; give {block} (a sequence) to {met}"
        )
    loader = Loader(
        shards, block_size=block, batch_size=tokens // block, data_seed=config.data_seed
    )
    rows = loader.global_batch(0)
    return Batch("seen", as_tensor(rows), hashlib.sha256(rows.tobytes()).hexdigest())


def rows_at_once(model: GPT) -> int:
    """Sequences in one pass: 2,048 tokens, or one sequence, which bounds the memory."""
    return max(1, 2048 // model.shape.block_size)
