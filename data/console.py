"""What the commands of `python -m data` share: how they read arguments and what they print."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import NoReturn

from data.command import training_command
from data.shards import META, SPLITS
from storage import read_json

_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print `message` and leave with exit code 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_out(parser: argparse.ArgumentParser, default: str) -> None:
    """The option --out, the directory to write."""
    parser.add_argument(
        "--out", type=Path, default=Path(default), metavar="DIR", help=f"directory, {default}"
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """The option --workers, tokenizer processes; default every core this process may use."""
    parser.add_argument("--workers", type=positive, metavar="N", help="processes, all cores")


def positive(text: str) -> int:
    """A whole number above 0.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")


def count(text: str) -> int:
    """A number of tokens: `1B`, `2.5M`, `100_000`, `100,000`.

    Raises:
        argparse.ArgumentTypeError: it is not a whole number, or below 1.
    """
    match = re.fullmatch(r"(\d[\d_,]*(?:\.\d+)?)([KMBT]?)", text.strip().upper())
    if match:
        digits, factor = match[1].replace("_", "").replace(",", ""), _FACTORS[match[2]]
        whole, _, fraction = digits.partition(".")
        value, remainder = divmod(int(whole + fraction) * factor, 10 ** len(fraction))
        if value >= 1 and not remainder:
            return value
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a number of tokens; write it like 1B, 2.5M or 100_000"
    )


def command_line(args: argparse.Namespace) -> str:
    """The command as the user typed it, for messages."""
    return shlex.join(["python", "-m", "data", *args.typed])


def shown(message: str) -> None:
    """One line for the user on stdout."""
    print(message, flush=True)


def finished(directory: Path, *, was_there: bool) -> None:
    """The sizes of a complete directory, and the command that trains on it."""
    meta = read_json(directory / META)
    assert meta is not None, f"{directory} is called complete, but has no {META}"
    splits = {s: meta["splits"][s] for s in SPLITS if s in meta["splits"]}
    parts = [_split(split, summary) for split, summary in splits.items() if summary["tokens"]]
    verb = "is complete already" if was_there else "written"
    shown(f"{directory} {verb}: {'; '.join(parts)}; vocab_size {meta['vocab_size']}")
    if "test" not in splits:
        shown("it has no test split; to get one, remove the folder and give the command again")
    if command := training_command(directory):
        shown(f"train on it: {command}")
    else:
        shown("train and val need at least one sequence each to train on: give more text")


def _split(split: str, summary: dict[str, int | None]) -> str:
    documents = summary["documents"]
    of = "" if documents is None else f" in {documents:,} documents"
    return f"{split} {summary['tokens']:,} tokens{of}"
