"""How a directory of shards is made: shard by shard, and `meta.json` at the end.

Meanwhile `progress.json` holds the command and the position; it is replaced after each shard. If
the process is killed at any time, the directory holds whole shards and the place in the source from
which the next one starts.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from data.formats import HEADER_BYTES, TOKEN, DataError, map_shard, write_shard
from data.index import ScanIndex, scan
from data.shards import META, PROGRESS, SPLITS, shard_files
from storage import LockedError, lock, read_json, remove_leftovers, write_json


@dataclass(frozen=True)
class Recipe:
    """Everything that the bytes of a directory depend on.

    `arguments` must be JSON and complete: equal recipes give equal bytes. Those of the test split
    have names that begin with "test_". `command` is what the user types to go on.
    """

    source: str
    tokenizer: str
    vocab_size: int
    eot_id: int | None
    arguments: dict[str, Any]
    command: str

    def key(self) -> dict[str, Any]:
        """What must agree for two commands to mean the same directory."""
        return {name: value for name, value in asdict(self).items() if name != "command"}


@dataclass
class _Written:
    """One complete shard."""

    name: str
    tokens: int
    documents: int | None  # None where documents have no separator
    sha256: str | None = None  # of the tokens; None where an earlier version wrote them


@dataclass
class Output:
    """The shards written so far, and the one being filled.

    `position` is the source's own record (JSON) of where the first token after the last complete
    shard comes from; None at the beginning.
    """

    directory: Path
    recipe: Recipe
    shard_tokens: int
    split: str = "val"  # val and test are written before train
    shards: dict[str, list[_Written]] = field(default_factory=lambda: {s: [] for s in SPLITS})
    position: dict[str, Any] | None = None
    _parts: list[np.ndarray] = field(default_factory=list)
    _filled: int = 0

    def tokens(self, split: str) -> int:
        """Tokens of `split` so far, with those not yet on disk."""
        written = sum(shard.tokens for shard in self.shards[split])
        return written + (self._filled if split == self.split else 0)

    def fill(self, tokens: np.ndarray) -> int:
        """Take as many of `tokens` as the current shard has room for; returns how many."""
        taken = tokens[: self.shard_tokens - self._filled]
        self._parts.append(taken)
        self._filled += len(taken)
        return len(taken)

    @property
    def full(self) -> bool:
        """Whether the current shard must be written before more is filled in."""
        return self._filled == self.shard_tokens

    def write(self, position: dict[str, Any] | None, *, next_split: str | None = None) -> None:
        """Write the current shard and then `position`, where the next token comes from.

        `next_split` begins another split.

        Raises:
            DataError: the directory cannot be written.
        """
        try:
            self._write(position, next_split)
        except OSError as error:
            raise DataError(f"{self.directory} cannot be written: {error.strerror}") from None

    def _write(self, position: dict[str, Any] | None, next_split: str | None) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if not any(self.shards.values()):
            self._save_progress()  # before the first shard, or it would look like another program's
        if self._filled:
            tokens = np.concatenate(self._parts).astype(TOKEN, copy=False)
            name = f"{self.recipe.source}_{self.split}_{len(self.shards[self.split]):06d}.bin"
            write_shard(self.directory / name, tokens)
            sha256 = self._index(self.directory / name, tokens)
            written = _Written(name, len(tokens), self._documents(tokens), sha256)
            self.shards[self.split].append(written)
            self._parts, self._filled = [], 0
        self.position = position
        self.split = next_split or self.split
        self._save_progress()

    def finish(self) -> None:
        """Write `meta.json`, which makes the directory complete.

        Raises:
            DataError: the directory cannot be written.
        """
        meta = self.recipe.key() | {
            "splits": {split: self._summary(split) for split in SPLITS},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            write_json(self.directory / META, meta)
            (self.directory / PROGRESS).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{self.directory} cannot be written: {error.strerror}") from None

    def _summary(self, split: str) -> dict[str, Any]:
        shards = self.shards[split]
        documents = [shard.documents for shard in shards if shard.documents is not None]
        return {
            "tokens": self.tokens(split),
            "documents": sum(documents) if documents else None,
            "shards": [asdict(shard) for shard in shards],
        }

    def _documents(self, tokens: np.ndarray) -> int | None:
        eot_id = self.recipe.eot_id
        return None if eot_id is None else int(np.count_nonzero(tokens == eot_id))

    def _index(self, path: Path, tokens: np.ndarray) -> str:
        index, found = ScanIndex(self.directory), scan(tokens)
        index.record(path, tokens, found)
        index.save()
        return found.sha256

    def _save_progress(self) -> None:
        state = {
            "command": self.recipe.command,
            "recipe": self.recipe.key(),
            "split": self.split,
            "shards": {s: [asdict(shard) for shard in self.shards[s]] for s in SPLITS},
            "position": self.position,
        }
        write_json(self.directory / PROGRESS, state)


@contextlib.contextmanager
def opened(directory: Path, recipe: Recipe, *, shard_tokens: int) -> Iterator[Output | None]:
    """The output to go on with, or None where the directory is complete already.

    Raises:
        DataError: the directory holds something else, was begun with other arguments, is damaged,
            or is being written by another process.
    """
    if not 1 <= shard_tokens < 2**31:
        raise DataError(f"shards of {shard_tokens} tokens; valid: 1 to 2,147,483,647")
    with _locked(directory):
        yield None if _is_complete(directory, recipe) else _resumed(directory, recipe, shard_tokens)


def split_by_hash(text: str, val_fraction: float, test_fraction: float = 0.0) -> str:
    """The split of a document or file, from a hash of its text or name alone."""
    place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    if place < val_fraction * 2**64:
        return "val"
    return "test" if place < (val_fraction + test_fraction) * 2**64 else "train"


def write_documents(output: Output, split: str, encoded: Iterable[np.ndarray]) -> None:
    """Write a whole split from arrays of tokens, for sources too small to need resuming."""
    output.split, output.shards[split] = split, []
    for tokens in encoded:
        while len(tokens):
            tokens = tokens[output.fill(tokens) :]
            if output.full:
                output.write(None)
    output.write(None)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock; the kernel releases it however the process ends."""
    try:
        held = lock(directory)
    except LockedError as error:
        raise DataError(f"{error}; wait until it ends") from None
    except OSError as error:
        raise DataError(f"{directory} cannot be written: {error.strerror}") from None
    with held:
        yield


def _is_complete(directory: Path, recipe: Recipe) -> bool:
    meta = read_json(directory / META)
    if meta is None:
        return False
    there = {key: meta.get(key) for key in recipe.key()}
    _require_same(directory, there, recipe, splits=meta["splits"])
    for summary in meta["splits"].values():
        for shard in summary["shards"]:
            _require_whole(directory, _Written(**shard))
    return True


def _resumed(directory: Path, recipe: Recipe, shard_tokens: int) -> Output:
    output = Output(directory, recipe, shard_tokens)
    progress = read_json(directory / PROGRESS)
    if progress is None:
        if strangers := shard_files(directory):
            raise DataError(
                f"{directory} already holds shards from elsewhere ({strangers[0].name}, ...);"
                " choose another directory with --out"
            )
        return output
    _require_same(directory, progress["recipe"], recipe, splits=progress["shards"])
    output.split, output.position = progress["split"], progress["position"]
    for split, shards in progress["shards"].items():
        output.shards[split] = [_Written(**shard) for shard in shards]
        for shard in output.shards[split]:
            _require_whole(directory, shard)
    remove_leftovers(directory)
    return output


def _require_same(
    directory: Path, there: dict[str, Any], recipe: Recipe, splits: Collection[str]
) -> None:
    here = recipe.key()
    if "test" not in splits:  # made before there were test splits, and still valid
        kept = {k: v for k, v in recipe.arguments.items() if not k.startswith("test_")}
        here |= {"arguments": kept}
    if there == here:
        return
    old, new = _flat(there), _flat(here)
    differing = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    shown = ", ".join(f"{key} {old.get(key)!r}, now {new.get(key)!r}" for key in differing)
    raise DataError(
        f"{directory} was made with other arguments ({shown}); choose another directory with"
        " --out, or remove that one"
    )


def _flat(key: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name != "arguments"} | (
        key.get("arguments") or {}
    )


def _require_whole(directory: Path, shard: _Written) -> None:
    path = directory / shard.name
    try:
        whole = len(map_shard(path)) == shard.tokens
        fault = f"does not hold {shard.tokens:,} tokens any more"
    except FileNotFoundError:
        whole, fault = False, "is gone"
    except DataError:
        whole, fault = False, f"is damaged ({path.stat().st_size:,} bytes, not"
        fault += f" {HEADER_BYTES + shard.tokens * TOKEN.itemsize:,})"
    if not whole:
        raise DataError(f"{path} {fault}; remove {directory} and make it again")


def recorded_arguments(directory: Path) -> dict[str, Any]:
    """The arguments with which `directory` was made or begun; empty if it was not."""
    progress = read_json(directory / PROGRESS) or {}
    meta = read_json(directory / META) or progress.get("recipe") or {}
    return meta.get("arguments") or {}
