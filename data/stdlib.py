"""`python -m data stdlib`: the source files of the running Python's own library, as bytes.

This real text is on every machine and needs no network, no account and no tokenizer.
"""

from __future__ import annotations

import argparse
import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from data.console import add_out, command_line, finished
from data.formats import DataError
from data.vocabulary import Bytes
from data.writer import Output, Recipe, opened, split_by_hash, write_documents

HELP = "the running Python's own library as bytes: no network needed"
DEFAULT_OUT = "data/tokens/stdlib"

# These are no library text (installed packages), or so large or regular that they would dominate:
# CPython's tests are 17 MB, its character maps are tables, pydoc_data is one generated file.
EXCLUDED_FOLDERS = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "idlelib",
    "encodings",
    "pydoc_data",
}
HELD_OUT = 0.07  # of the files: modules are val, files of packages are test


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's own options."""
    add_out(parser, DEFAULT_OUT)


def run(args: argparse.Namespace) -> None:
    """Write the directory, unless it is complete.

    Raises:
        DataError: a mistake of the user, or a disk that refuses; one line.
    """
    tokenizer = Bytes()
    recipe = Recipe(
        source="stdlib",
        tokenizer=tokenizer.name,
        vocab_size=tokenizer.vocab_size,
        eot_id=tokenizer.eot_id,
        arguments={"python": platform.python_version(), "test_files": "packages"},
        command=command_line(args),
    )
    with opened(args.out, recipe, shard_tokens=100_000_000) as output:
        if output is not None:
            _write(output, tokenizer)
    finished(args.out, was_there=output is None)


def _write(output: Output, tokenizer: Bytes) -> None:
    root = Path(sysconfig.get_path("stdlib"))
    files = list(source_files(root))
    if not files:
        raise DataError(f"no .py files in {root}, this Python's library; use `text` or `coinflip`")
    for split in ("val", "test", "train"):
        chosen = [name for name in files if split_of(name) == split]
        texts = ((root / name).read_text(encoding="utf-8", errors="replace") for name in chosen)
        write_documents(output, split, (tokenizer.encode([text]) for text in texts))
    output.finish()


def split_of(name: str) -> str:
    """The split of a file, from its path below the library: the same one on every machine."""
    split = split_by_hash(name, HELD_OUT)
    return "test" if split == "val" and "/" in name else split


def source_files(root: Path) -> Iterator[str]:
    """Paths of the .py files under `root`, relative to it, with forward slashes, in fixed order."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - EXCLUDED_FOLDERS)
        for name in sorted(names):
            # _sysconfigdata holds the paths of the machine that built this Python.
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                yield (Path(folder) / name).relative_to(root).as_posix()
