"""Tokens on disk, and which of them a training step sees.

    tokens = open_split("data/tokens/fineweb", "train", vocab_size=50257)
    loader = Loader(tokens, block_size=1024, batch_size=480, data_seed=1)
    with loader.batches(start_step=0) as batches:
        inputs_and_targets = next(batches)  # int64 (480, 1025)

`python -m data` makes them.
"""

from data.loader import Loader, Prefetcher, Validation, first_batches_hash
from data.shards import FORMATS, DataError, MissingShards, Tokens, open_split

__all__ = [
    "FORMATS",
    "DataError",
    "Loader",
    "MissingShards",
    "Prefetcher",
    "Tokens",
    "Validation",
    "first_batches_hash",
    "open_split",
]
