"""`python -m data show RUN STEP`: the text that a run trained on at one update.

Which windows those are is a function of (data_seed, step), so nothing was recorded for it. If the
data are no longer those that the run began with, it says so and shows nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.formats import DataError
from data.loader import Loader, fingerprint, first_batches_hash
from data.shards import Tokens, open_splits
from data.vocabulary import GPT2, Bytes, tokenizer_name, tokenizer_named
from storage import read_json

if TYPE_CHECKING:
    from configs import Config

HELP = "the text of the batch of one update of a run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("step", type=int, metavar="STEP", help="update, from 0 as in metrics.jsonl")
    parser.add_argument("--rank", type=int, metavar="R", help="only the sequences of this rank")


def run(args: argparse.Namespace) -> None:
    """Print each sequence of the batch below a line that says where it lies.

    Raises:
        DataError: there is no such run, step or rank; or the data have changed; one line.
    """
    config, record = _config(args.run), read_json(args.run / "record.json") or {}
    if not 0 <= args.step < config.train.total_steps:
        raise DataError(
            f"{args.run} has updates 0 to {config.train.total_steps - 1}, not {args.step}"
        )
    data, vocabulary = config.data, config.model.vocab_size
    splits = open_splits(data.dir, vocab_size=vocabulary, format=data.format, scan=False)
    loader = _loader(config, splits["train"])
    _refuse_other_data(loader, splits, record.get("hashes") or {}, data.dir)
    rows = _rows(loader.batch_size, args.rank, _ranks(record, args.step), args.run)
    text = _decoder(data.dir, vocabulary)
    indices, block = loader.window_ids(args.step)[rows.start : rows.stop], config.model.block_size
    try:
        print(f"{args.run}: update {args.step}, {len(rows)} sequences of {block} tokens")
        windows = loader.windows.take(indices)
        for number, index, tokens in zip(rows, indices.tolist(), windows, strict=True):
            path, first = loader.windows.place(index)
            where = f"{path.name}, tokens {first:,} to {first + block:,}"
            print(f"---- sequence {number}: window {index:,} ({where})")
            print(text(tokens.tolist()))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; at exit Python would say so
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _config(folder: Path) -> Config:
    from configs import ConfigError, load

    path = folder / "config.toml"
    if not path.is_file():
        raise DataError(f"{folder} is no folder of a run: it has no config.toml")
    try:
        return load([str(path)])
    except ConfigError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _loader(config: Config, tokens: Tokens) -> Loader:
    """The batches of a run, whatever the number of its ranks."""
    block = config.model.block_size
    size = config.train.batch_tokens // block
    return Loader(tokens, block_size=block, batch_size=size, data_seed=config.data_seed)


def _refuse_other_data(
    loader: Loader, splits: Mapping[str, Tokens], recorded: dict[str, Any], directory: str
) -> None:
    hashes = {"first batches": ("batches", first_batches_hash(loader))}
    hashes["shards"] = ("data", fingerprint(splits.values()))
    for what, (name, now) in hashes.items():
        if (then := recorded.get(name)) not in (None, now):
            raise DataError(
                f"{directory} no longer holds what the run began with: the hash of its {what}"
                f" is {now[:8]}, not {then[:8]}; bring the old tokens back"
            )


def _ranks(record: dict[str, Any], step: int) -> int:
    """How many ranks there were at `step`: those of the last launch that began by then."""
    known = [launch.get("environment") or {} for launch in record.get("launches", [])]
    begun = [e["world_size"] for e in known if "world_size" in e and e.get("start_step", 0) <= step]
    return begun[-1] if begun else 1


def _rows(size: int, rank: int | None, ranks: int, folder: Path) -> range:
    """The numbers of the sequences to show."""
    if rank is None:
        return range(size)
    if not 0 <= rank < ranks:
        raise DataError(f"{folder} had ranks 0 to {ranks - 1} at this update, not {rank}")
    share = size // ranks
    return range(rank * share, (rank + 1) * share)


def _decoder(directory: str, vocab_size: int) -> Callable[[list[int]], str]:
    """Ids to text, or to the ids themselves where no tokenizer is known."""
    name = tokenizer_name(directory, vocab_size)
    if name not in (GPT2.name, Bytes.name):
        return lambda ids: " ".join(map(str, ids))
    return tokenizer_named(name).decode
