"""`python -m data fineweb`: FineWeb, or any other text dataset, in GPT-2 tokens.

The dataset is streamed from Hugging Face, or read from local .parquet or .jsonl files, and
tokenized on all cores. The first documents are for validation, the next ones for the test at the
end of a run, the rest for training. Killed at any time, the same command goes on after the last
whole shard, to the same bytes.
"""

from __future__ import annotations

import argparse
import glob
import itertools
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.console import add_out, add_workers, command_line, count, finished, shown
from data.formats import DataError
from data.parallel import encoded
from data.vocabulary import GPT2
from data.writer import Output, Recipe, opened, recorded_arguments

HELP = "FineWeb or any text dataset of Hugging Face, or local .parquet or .jsonl files"
DEFAULT_OUT = "data/tokens/fineweb"
DEFAULT_DATASET = "HuggingFaceFW/fineweb"
DEFAULT_NAME = "sample-10BT"
DOCUMENTS_PER_BATCH = 256  # about 0.8 MB of FineWeb: large against what passing it on costs

# What `datasets` calls the reader of local files, by their extension.
READERS = {".parquet": "parquet", ".jsonl": "json", ".jsonl.gz": "json", ".jsonl.zst": "json"}

State = dict[str, Any]  # a position in a stream, as `datasets` records it; JSON


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's own options."""
    parser.add_argument(
        "--dataset",
        default=DEFAULT_DATASET,
        metavar="NAME|FILES",
        help=f"dataset on Hugging Face, or a .parquet or .jsonl file or glob, {DEFAULT_DATASET}",
    )
    parser.add_argument(
        "--name", help=f"configuration of the dataset, {DEFAULT_NAME} for {DEFAULT_DATASET}"
    )
    parser.add_argument("--split", default="train", help="split of the dataset to read, train")
    parser.add_argument("--revision", help="commit of the dataset, the newest one at the start")
    parser.add_argument("--text-column", default="text", metavar="COLUMN", help="text")
    parser.add_argument(
        "--tokens", type=count, default=10**9, metavar="N", help="training tokens, 1B"
    )
    parser.add_argument(
        "--val-tokens",
        type=count,
        default=11_000_000,  # the presets evaluate on 10,485,760
        metavar="N",
        help="validation tokens, completed to a whole document, 11M",
    )
    parser.add_argument(
        "--test-tokens", type=count, metavar="N", help="test tokens, as many as --val-tokens"
    )
    parser.add_argument(
        "--shard-tokens", type=count, default=100_000_000, metavar="N", help="per shard, 100M"
    )
    add_workers(parser)
    add_out(parser, DEFAULT_OUT)


def run(args: argparse.Namespace) -> None:
    """Write the directory, or go on with it, unless it is complete.

    Raises:
        DataError: a mistake of the user, or a network, file or disk that fails; one line.
    """
    source = source_of(args)
    tokenizer = GPT2()
    recipe = Recipe(
        source="fineweb",
        tokenizer=tokenizer.name,
        vocab_size=tokenizer.vocab_size,
        eot_id=tokenizer.eot_id,
        arguments={
            **source.arguments(),
            "tokens": args.tokens,
            "val_tokens": args.val_tokens,
            "test_tokens": args.test_tokens or args.val_tokens,
            "shard_tokens": args.shard_tokens,
        },
        command=command_line(args),
    )
    with opened(args.out, recipe, shard_tokens=args.shard_tokens) as output:
        if output is not None:
            _go_on(output, source, tokenizer, args)
    finished(args.out, was_there=output is None)


def _go_on(output: Output, source: _Source, tokenizer: GPT2, args: argparse.Namespace) -> None:
    goals = {
        "val": args.val_tokens,
        "test": output.recipe.arguments["test_tokens"],
        "train": args.tokens,
    }
    place = _Place.of(output.position)
    batches = encoded(source.batches(place.stream), tokenizer, workers=args.workers)
    # Closed here, so that after an error the bar and the workers are gone before it is reported.
    with closing(batches), closing(_with_progress(batches, output, goals)) as counted:
        _write(output, counted, place, goals)
    if output.tokens("train") < args.tokens:
        shown(f"{args.dataset} ended before {args.tokens:,} training tokens")


@dataclass(frozen=True)
class _Place:
    """Where the next token comes from: the batch that starts at `stream`, after `skip` tokens."""

    stream: State | None  # None: the first batch
    skip: int

    @staticmethod
    def of(position: dict[str, Any] | None) -> _Place:
        """The place that a progress file records; None is the beginning."""
        return _Place(None, 0) if position is None else _Place(**position)

    def position(self) -> dict[str, Any]:
        """What the progress file records."""
        return {"stream": self.stream, "skip": self.skip}


@dataclass(frozen=True)
class _Source:
    """A dataset on Hugging Face, or local files when `files` is not empty."""

    dataset: str
    name: str | None
    split: str
    revision: str | None
    column: str
    files: tuple[str, ...] = ()

    def arguments(self) -> dict[str, Any]:
        """What identifies the documents; local files are known by their number and size."""
        size = sum(Path(file).stat().st_size for file in self.files)
        local = {"files": f"{len(self.files)} files, {size:,} bytes"} if self.files else {}
        hub = {} if self.files else {"revision": self.revision}
        names = {"dataset": self.dataset, "name": self.name, "split": self.split}
        return {**names, "text_column": self.column, **hub, **local}

    def batches(self, state: State | None) -> Iterator[tuple[State | None, list[str]]]:
        """Batches of documents from `state` on, each with the state at which it starts.

        Raises:
            DataError: the network or a file failed; one line.
        """
        stream = self._open()
        if state is not None:
            stream.load_state_dict(state)
        documents: list[str] = []
        for row in _guarded(iter(stream), self.dataset):
            documents.append(self._text(row))
            if len(documents) == DOCUMENTS_PER_BATCH:
                yield state, documents
                state, documents = stream.state_dict(), []
        if documents:
            yield state, documents

    def _text(self, row: dict[str, Any]) -> str:
        text = row[self.column]
        if not isinstance(text, str):
            raise DataError(
                f"{self.dataset}: a document's {self.column!r} is {type(text).__name__}, not text;"
                " choose another --text-column, or remove such rows"
            )
        return text

    def _open(self) -> Any:
        from datasets import load_dataset

        try:
            if self.files:
                files, reader = list(self.files), _reader(self.files[0])
                stream = load_dataset(reader, data_files=files, split="train", streaming=True)
            else:
                stream = load_dataset(
                    self.dataset,
                    self.name,
                    split=self.split,
                    revision=self.revision,
                    streaming=True,
                )
            columns = list(next(iter(stream), {}))  # some readers know them only after a row
        except Exception as error:  # the network, the hub or a file's format: the user can mend it
            raise DataError(_cannot_open(self.dataset, error)) from None
        if self.column not in columns:
            raise DataError(
                f"{self.dataset} has no column {self.column!r}; choose --text-column from:"
                f" {', '.join(columns) or 'nothing, it is empty'}"
            )
        return stream.select_columns([self.column])


def source_of(args: argparse.Namespace) -> _Source:
    """The dataset that the arguments name, with the revision filled in.

    Raises:
        DataError: no such files, or the hub does not answer.
    """
    if _is_local(args.dataset):
        return _local(args)
    default_name = DEFAULT_NAME if args.dataset == DEFAULT_DATASET else None
    # A directory keeps the revision that it began with, whatever the hub has by now.
    revision = args.revision or recorded_arguments(args.out).get("revision")
    if revision is None:
        revision = _newest_revision(args.dataset)
    return _Source(args.dataset, args.name or default_name, args.split, revision, args.text_column)


def _local(args: argparse.Namespace) -> _Source:
    found = glob.glob(args.dataset, recursive=True)  # noqa: PTH207  (Path.glob wants relative ones)
    files = tuple(sorted(found))
    if not files:
        raise DataError(f"--dataset {args.dataset}: no such file")
    if args.name or args.revision or args.split != "train":
        raise DataError("--name, --revision and --split belong to datasets on Hugging Face only")
    return _Source(args.dataset, None, "train", None, args.text_column, files)


def _is_local(dataset: str) -> bool:
    return any(dataset.endswith(extension) for extension in READERS)


def _reader(file: str) -> str:
    return next(reader for extension, reader in READERS.items() if file.endswith(extension))


def _newest_revision(dataset: str) -> str | None:
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(dataset).sha
    except Exception as error:  # the hub's client raises its own, httpx's and OSError
        raise DataError(_cannot_open(dataset, error)) from None


def _cannot_open(dataset: str, error: Exception) -> str:
    return (
        f"dataset {dataset!r} cannot be opened ({_first_line(error)}); without a network give a"
        " local file with --dataset FILE.parquet or FILE.jsonl, or use text or stdlib"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _guarded(rows: Iterator[dict[str, Any]], dataset: str) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"reading {dataset!r} failed ({_first_line(error)}); the same command goes on after"
            " the last whole shard"
        ) from None


def _with_progress(
    batches: Iterable[tuple[State | None, np.ndarray]], output: Output, goals: dict[str, int]
) -> Generator[tuple[State | None, np.ndarray]]:
    from tqdm import tqdm

    done = sum(map(output.tokens, goals))
    total = sum(goals.values())
    with tqdm(total=total, initial=done, unit=" tokens", unit_scale=True, delay=1) as bar:
        for state, tokens in batches:
            yield state, tokens
            bar.update(len(tokens))


def _write(
    output: Output,
    batches: Iterable[tuple[State | None, np.ndarray]],
    place: _Place,
    goals: dict[str, int],
) -> None:
    """Fill the shards: val and test, to the end of a document, then train, to its last token."""
    skip, following = place.skip, dict(itertools.pairwise(goals))
    for state, tokens in batches:
        while skip < len(tokens) and output.tokens("train") < goals["train"]:
            share, completes = _share(output, tokens[skip:], goals[output.split])
            taken = output.fill(share)
            skip += taken
            ended = completes and taken == len(share)
            if output.full or ended:
                then = following.get(output.split) if ended else None
                output.write(_Place(state, skip).position(), next_split=then)
        place, skip = _Place(state, skip), 0
        if output.tokens("train") == goals["train"]:
            break
    if not output.tokens("train"):
        raise DataError(_none_for_training(output, goals))
    output.write(place.position())  # what is left when the dataset ended early
    output.finish()


def _share(output: Output, rest: np.ndarray, goal: int) -> tuple[np.ndarray, bool]:
    """The tokens of `rest` that belong to the current split, and whether they complete it."""
    missing = max(goal - output.tokens(output.split), 0)
    if output.split == "train":
        return rest[:missing], missing <= len(rest)
    starts = np.flatnonzero(rest == output.recipe.eot_id)  # of documents
    later = starts[starts >= missing]
    return (rest[: later[0]], True) if len(later) else (rest, False)


def _none_for_training(output: Output, goals: dict[str, int]) -> str:
    dataset, found = output.recipe.arguments["dataset"], sum(map(output.tokens, goals))
    return (
        f"{dataset} has {found:,} tokens, and all of them go to --val-tokens {goals['val']:,} and"
        f" --test-tokens {goals['test']:,}; choose fewer, and remove {output.directory} first"
    )
