"""`python -m data coinflip`: independent tokens, 1 with probability p, else 0.

A model can learn nothing but p, so the lowest possible loss is known: the entropy of p, 0.6370 nats
for p = 0.666 (0.6365 for 2/3). There are no documents and no end-of-text token, because they would
change that floor.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import numpy as np

from data.console import add_out, command_line, count, finished, shown
from data.formats import TOKEN, DataError
from data.permutation import keys, mix
from data.writer import Recipe, opened, write_documents

HELP = "Bernoulli(p) tokens, whose entropy is a known floor for the loss"
DEFAULT_OUT = "data/tokens/coinflip"
STREAMS = {"train": 0, "val": 1, "test": 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's own options."""
    parser.add_argument("--p", type=float, default=0.666, help="probability of token 1, 0.666")
    parser.add_argument("--train-tokens", type=count, default=2_000_000, metavar="N", help="2M")
    parser.add_argument(
        # The mean of n terms -log q has standard error 0.33 / sqrt(n) nats at p = 0.666:
        # 0.0003 nats for a million.
        "--val-tokens",
        type=count,
        default=1_000_000,
        metavar="N",
        help="1M: then the set's own entropy is within 0.001 nats of p's",
    )
    parser.add_argument("--test-tokens", type=count, metavar="N", help="as --val-tokens")
    parser.add_argument("--seed", type=int, default=1, help="of the flips, 1")
    add_out(parser, DEFAULT_OUT)


def run(args: argparse.Namespace) -> None:
    """Write the directory, unless it is complete.

    Raises:
        DataError: a mistake of the user, or a disk that refuses; one line.
    """
    if not 0 < args.p < 1:
        raise DataError(f"--p {args.p:g} is not the probability of a coin; valid: between 0 and 1")
    if not 0 <= args.seed < 2**64:
        raise DataError(f"--seed {args.seed} is not in 0 ... 2**64 - 1")
    test_tokens = args.test_tokens or args.val_tokens
    lengths = {"val": args.val_tokens, "test": test_tokens, "train": args.train_tokens}
    recipe = Recipe(
        source="coinflip",
        tokenizer="coinflip",
        vocab_size=2,
        eot_id=None,
        arguments={
            "p": args.p,
            "seed": args.seed,
            "val": args.val_tokens,
            "train": args.train_tokens,
            "test_tokens": test_tokens,
        },
        command=command_line(args),
    )
    with opened(args.out, recipe, shard_tokens=100_000_000) as output:
        if output is not None:
            for split, length in lengths.items():
                flips = flip(args.p, length, seed=args.seed, stream=STREAMS[split])
                write_documents(output, split, flips)
            output.finish()
    shown(f"the entropy of p = {args.p:g} is {entropy(args.p):.6f} nats")
    finished(args.out, was_there=output is None)


def flip(p: float, length: int, *, seed: int, stream: int) -> Iterator[np.ndarray]:
    """`length` flips as uint16 arrays: hashes of their positions, equal in every NumPy version."""
    key = keys(seed, stream, 1)
    threshold = np.uint64(round(p * 2**64))
    for start in range(0, length, 2**20):
        places = np.arange(start, min(start + 2**20, length), dtype=np.uint64)
        # mix() twice: the counter enters unmixed, as in splitmix64, but without its odd increment.
        yield (mix(mix(places + key) + key) < threshold).astype(TOKEN)


def entropy(p: float) -> float:
    """The entropy of a coin, in nats."""
    return -p * math.log(p) - (1 - p) * math.log(1 - p)
