"""Tokens on disk, and which of them a training step sees.

    tokens = open_split("data/tokens/fineweb", "train", vocab_size=50257)
    loader = Loader(tokens, block_size=1024, batch_size=480, data_seed=1)
    with loader.batches(start_step=0) as batches:
        inputs_and_targets = next(batches)  # int64 (480, 1025)

`python -m data` makes them.
"""

from data.formats import FORMATS, DataError
from data.loader import (
    HeldOut,
    Loader,
    data_hashes,
    first_batches_hash,
    held_out,
    listed,
)
from data.prefetch import Prefetcher
from data.shards import MissingShards, Tokens, open_split, open_splits

__all__ = [
    "FORMATS",
    "DataError",
    "HeldOut",
    "Loader",
    "MissingShards",
    "Prefetcher",
    "Tokens",
    "data_hashes",
    "first_batches_hash",
    "held_out",
    "listed",
    "open_split",
    "open_splits",
]
