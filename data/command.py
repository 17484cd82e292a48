"""The command that trains on a directory of shards, with settings that fit it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from data.loader import Windows
from data.shards import META, open_split
from storage import read_json

FOR_SOURCE = {"coinflip": "configs/coinflip.toml", "stdlib": "configs/quickstart.toml"}
SMALL, LARGE = "configs/quickstart.toml", "configs/gpt2_124m.toml"
LARGE_TOKENS = 100_000_000  # from here on: fewer would be repeated too often by 10 B tokens


def training_command(directory: Path) -> str | None:
    """What to type to train on the complete `directory`; None if it holds too little text.

    The preset's own batch and validation are kept where the data are large enough for them.
    """
    meta: dict[str, Any] = read_json(directory / META) or {}
    large = meta["splits"]["train"]["tokens"] >= LARGE_TOKENS
    preset = FOR_SOURCE.get(meta["source"], LARGE if large else SMALL)
    from configs import load  # takes 0.1 s, at the end of the work

    config = load([str(Path(__file__).parent.parent / preset)])
    block = config.model.block_size
    train, val = (
        len(Windows(open_split(directory, split, vocab_size=meta["vocab_size"]), block))
        for split in ("train", "val")
    )
    if not train or not val:
        return None
    fitting = {
        "data.dir": (str(directory), config.data.dir),
        "model.vocab_size": (meta["vocab_size"], config.model.vocab_size),
        "eval.tokens": (min(config.eval.tokens, val * block), config.eval.tokens),
    }
    if train * block < config.train.batch_tokens:  # a power of two divides among processes
        batch = 2 ** (train.bit_length() - 1) * block
        fitting["train.batch_tokens"] = (batch, config.train.batch_tokens)
    flags = [w for key, (a, b) in fitting.items() if a != b for w in (f"--{key}", str(a))]
    return shlex.join(["python", "-m", "launch", preset, *flags])
