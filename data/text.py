"""`python -m data text PATH...`: your own files and folders of UTF-8 text.

A file is a document. A few files cannot be divided fairly into train, val and test, so below 100
files each is cut at blank lines into documents of some thousand characters (--split-on). A hash of
its text assigns a document to a split: equal documents are never in two.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.console import add_out, add_workers, command_line, finished, positive, shown
from data.formats import DataError
from data.parallel import encoded, in_batches
from data.vocabulary import Tokenizer, tokenizer_named
from data.writer import Output, Recipe, opened, split_by_hash, write_documents

HELP = "your own files and folders of UTF-8 text"
DEFAULT_OUT = "data/tokens/text"
DOCUMENTS_PER_BATCH = 64
FEW_FILES = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's own options."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="file or folder")
    parser.add_argument(
        "--pattern", default="*", metavar="GLOB", help="files to take from folders, '*'"
    )
    parser.add_argument("--tokenizer", choices=("gpt2", "bytes"), default="gpt2", help="gpt2")
    parser.add_argument(
        "--split-on",
        choices=("auto", "file", "blank-line"),
        default="auto",
        help=f"where documents end; auto: blank-line below {FEW_FILES} files, else file",
    )
    parser.add_argument(
        "--document-chars",
        type=positive,
        default=4096,
        metavar="N",
        help="least length of a document that ends at a blank line, 4096",
    )
    parser.add_argument(
        "--val-fraction", type=float, default=0.1, metavar="F", help="share of documents, 0.1"
    )
    parser.add_argument(
        "--test-fraction", type=float, default=0.1, metavar="F", help="share for test, 0.1; 0: none"
    )
    add_workers(parser)
    add_out(parser, DEFAULT_OUT)


def run(args: argparse.Namespace) -> None:
    """Write the directory, unless it is complete.

    Raises:
        DataError: a mistake of the user, or a disk that refuses; one line.
    """
    shares = Shares(args.val_fraction, args.test_fraction)
    tokenizer = tokenizer_named(args.tokenizer)
    files = _without_binary(find_files(args.paths, args.pattern))
    by_line = args.split_on == "blank-line" or (args.split_on == "auto" and len(files) < FEW_FILES)
    least_chars = args.document_chars if by_line else None
    corpus = Corpus(files, least_chars, shares)
    recipe = Recipe(
        source="text",
        tokenizer=tokenizer.name,
        vocab_size=tokenizer.vocab_size,
        eot_id=tokenizer.eot_id,
        arguments={
            "files": len(files),
            "text_sha256": corpus.survey(),
            "least_chars": least_chars,
            "val_fraction": shares.val,
            "test_fraction": shares.test,
        },
        command=command_line(args),
    )
    with opened(args.out, recipe, shard_tokens=100_000_000) as output:
        if output is not None:
            _write(output, corpus, tokenizer, args.workers)
    finished(args.out, was_there=output is None)


def find_files(paths: Sequence[Path], pattern: str) -> list[Path]:
    """The given files, and those below the given folders in order of name, each once.

    Hidden files and folders below a given folder are left out.

    Raises:
        DataError: a path does not exist, or no file matches.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = sorted(file for file in path.rglob(pattern) if file.is_file())
            found |= dict.fromkeys(f for f in below if not _is_hidden(f.relative_to(path)))
        elif path.is_file():
            found[path] = None
        else:
            raise DataError(f"{path} does not exist; give files or folders of text")
    if not found:
        raise DataError(f"no file matches {pattern!r} in {', '.join(map(str, paths))}")
    return list(found)


def _without_binary(files: Sequence[Path]) -> list[Path]:
    """The files that are text, as git tells them: no zero byte near the beginning.

    A line names the others.

    Raises:
        DataError: none is text.
    """
    binary = [file for file in files if _is_binary(file)]
    if binary:
        names = ", ".join(map(str, binary[:3])) + (", ..." if len(binary) > 3 else "")
        count = f"{len(binary)} binary file{'s' if len(binary) > 1 else ''} (with zero bytes)"
        if len(binary) == len(files):
            raise DataError(f"nothing but {count}: {names}; give files of UTF-8 text")
        shown(f"skipped {count}: {names}")
    skipped = set(binary)
    return [file for file in files if file not in skipped]


@dataclass(frozen=True)
class Shares:
    """Shares of the documents that are set aside; the rest is for training.

    Raises:
        DataError: nothing is left for val or for training.
    """

    val: float
    test: float

    def __post_init__(self) -> None:
        if not 0 < self.val < 1:
            raise DataError(f"--val-fraction {self.val:g}; valid: between 0 and 1")
        if not 0 <= self.test < 1 - self.val:
            raise DataError(
                f"--test-fraction {self.test:g}; valid: from 0 to below {1 - self.val:g}, which"
                " --val-fraction leaves"
            )

    def split_of(self, document: str) -> str:
        """The split of a document, from its text alone."""
        return split_by_hash(document, self.val, self.test)


class Corpus:
    """The documents of some files; `least_chars` None means one per file."""

    def __init__(self, files: Sequence[Path], least_chars: int | None, shares: Shares) -> None:
        self.files = files
        self.least_chars = least_chars
        self.shares = shares

    def documents(self, split: str) -> Iterator[str]:
        """The documents of one split, in order.

        Raises:
            DataError: a file is not UTF-8, or cannot be read.
        """
        split_of = self.shares.split_of
        return (document for document in self._all_documents() if split_of(document) == split)

    def survey(self) -> str:
        """A SHA-256 of all documents, which shows whether a text has changed.

        Raises:
            DataError: one of the splits would be empty, or a file is not UTF-8 or cannot be read.
        """
        digest, counts = hashlib.sha256(), dict.fromkeys(self.splits, 0)
        for document in self._all_documents():
            digest.update(hashlib.sha256(document.encode()).digest())
            counts[self.shares.split_of(document)] += 1
        if not all(counts.values()):
            listed = ", ".join(f"{count} to {split}" for split, count in counts.items())
            raise DataError(
                f"{sum(counts.values())} documents are too few ({listed}); give more text, or cut"
                " it finer with --split-on blank-line --document-chars 1000, or change"
                " --val-fraction and --test-fraction"
            )
        return digest.hexdigest()

    @property
    def splits(self) -> list[str]:
        """Those that are written, in that order."""
        return ["val", "test", "train"] if self.shares.test else ["val", "train"]

    def _all_documents(self) -> Iterator[str]:
        for file in self.files:
            yield from cut(_read(file), self.least_chars)


def cut(text: str, least_chars: int | None) -> Iterator[str]:
    """Pieces of `text`, each ending at the first blank line after `least_chars`; None: one piece.

    Joined, they are the text again.
    """
    if least_chars is None:
        yield text
        return
    start = 0
    for blank in re.finditer(r"\n[ \t\r]*\n\s*", text):
        if blank.end() - start >= least_chars:
            yield text[start : blank.end()]
            start = blank.end()
    if start < len(text):
        yield text[start:]


def _write(output: Output, corpus: Corpus, tokenizer: Tokenizer, workers: int | None) -> None:
    for split in corpus.splits:
        batches = (
            (None, batch) for batch in in_batches(corpus.documents(split), DOCUMENTS_PER_BATCH)
        )
        tokens = encoded(batches, tokenizer, workers=workers)
        write_documents(output, split, (array for _, array in tokens))
    output.finish()


def _read(file: Path) -> str:
    try:
        # newline="": a document keeps its line endings.
        with file.open(encoding="utf-8", newline="") as handle:
            return handle.read()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8 (byte {error.start:,}); convert it, or take others with --pattern"
        ) from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None


def _is_binary(file: Path) -> bool:
    try:
        with file.open("rb") as handle:
            return b"\0" in handle.read(8000)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
