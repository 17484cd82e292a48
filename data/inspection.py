"""`python -m data inspect DIR`: check a directory of shards and show what is in it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from data.console import shown
from data.formats import FORMATS, MAX_VOCAB_SIZE, DataError
from data.index import in_pieces
from data.shards import META, SPLITS, MissingShards, Tokens, open_split
from data.vocabulary import GPT2, Tokenizer, tokenizer_named
from storage import read_json

HELP = "check a directory of shards and show what is in it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("directory", type=Path, metavar="DIR")
    # The trainer's name too, which error messages advise.
    names = ("--format", "--data.format")
    parser.add_argument(
        *names, dest="format", choices=FORMATS, default="auto", help="of the shards, auto"
    )
    parser.add_argument(
        "--head", type=int, default=64, metavar="N", help="tokens to show of each split, 64"
    )


def run(args: argparse.Namespace) -> None:
    """Print a block for each split.

    Raises:
        DataError: a shard is bad, or there is none.
    """
    meta = read_json(args.directory / META) or {}
    vocab_size = meta.get("vocab_size", MAX_VOCAB_SIZE)
    splits: list[Tokens] = []
    missing: dict[str, MissingShards] = {}
    for split in SPLITS:
        try:
            found = open_split(
                args.directory, split, vocab_size=vocab_size, format=args.format, scan=False
            )
            found.scan(again=True)
            splits.append(found)
        except MissingShards as error:
            missing[split] = error
    if not splits:
        raise missing["train"]
    _show_origin(args.directory, meta)
    for tokens in splits:
        _show_split(tokens, meta, args.head)
    for split, absence in missing.items():
        optional = "test: none, so runs are judged on val"
        shown(optional if split == "test" else str(absence))


def _show_origin(directory: Path, meta: dict[str, Any]) -> None:
    if not meta:
        shown(f"{directory}: no {META}, so not made by `python -m data`")
        return
    arguments = ", ".join(f"{key} {value}" for key, value in meta["arguments"].items())
    shown(f"{directory}: {meta['source']} ({arguments}), made {meta['created']}")
    shown(
        f"tokenizer {meta['tokenizer']}, vocab_size {meta['vocab_size']}, eot_id {meta['eot_id']}"
    )


def _show_split(tokens: Tokens, meta: dict[str, Any], head: int) -> None:
    largest, counts = _count_ids(tokens)
    first = tokens.shards[0][:head].tolist()
    name, text = _decode(first, largest, meta)
    eot_id = meta["eot_id"] if meta else (GPT2.eot_id if name == "gpt2" else None)
    documents = "unknown" if eot_id is None else f"{counts[eot_id]:,}"
    shown(
        f"{tokens.split}: {len(tokens.shards):,} shards, {tokens.num_tokens:,} tokens,"
        f" documents: {documents}, largest id {largest}, {np.count_nonzero(counts):,} ids in use"
    )
    shown(f"  begins ({name}): {text!r}" if isinstance(text, str) else f"  begins (ids): {text}")


def _count_ids(tokens: Tokens) -> tuple[int, np.ndarray]:
    """The largest id, and how often each id occurs."""
    counts = np.zeros(MAX_VOCAB_SIZE, np.int64)
    for shard in tokens.shards:
        for piece in in_pieces(shard):
            counts += np.bincount(piece, minlength=MAX_VOCAB_SIZE)
    return int(np.flatnonzero(counts)[-1]), counts


def _decode(ids: list[int], largest: int, meta: dict[str, Any]) -> tuple[str, str | list[int]]:
    """The tokenizer's name and the text, or the ids where no tokenizer is known or available."""
    name = meta["tokenizer"] if meta else _likely_tokenizer(largest)
    try:
        tokenizer: Tokenizer = tokenizer_named(name)
    except DataError:
        return name, ids
    return name, tokenizer.decode(ids)


def _likely_tokenizer(largest: int) -> str:
    # Other projects' GPT-2 shards are not labelled, but hold its end-of-text token or large ids.
    return "gpt2" if GPT2.vocab_size > largest > 256 else "unknown"
