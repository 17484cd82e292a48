"""Checkpoints: what they hold, written whole or not at all, checked when they are read.

A file is step-<step>-<first 16 hex digits of the sha256 of its content>.pt: its name tells whether
its content is whole, so it needs no checksum file.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from record.metrics import StreamMetrics
from record.runlog import Log, RecordError
from storage import publish


@dataclass
class Progress:
    """The position of a run and its counters."""

    step: int = 0  # updates done
    train_seconds: float = 0.0  # on the loop's clock
    evaluated: int = -1  # step of the last evaluation
    metrics: dict[str, Any] = field(default_factory=dict)  # state of StreamMetrics
    log_offset: int = 0  # bytes of metrics.jsonl


@dataclass
class Checkpoint:
    """A run at one step. model, optimizer: their state_dict().

    evaluated: the model's, with the weights that an evaluation uses, where an optimizer averages
    them; None where these are the weights that are trained.
    """

    run: str  # name of the run
    config: str  # the resolved configuration, TOML
    progress: Progress
    model: dict[str, Any]
    optimizer: dict[str, Any]
    evaluated: dict[str, Any] | None = None


def capture(
    log: Log,
    run: str,
    config: str,
    progress: Progress,
    metrics: StreamMetrics,
    model: Any,
    optimizer: dict[str, Any],
    evaluated: dict[str, Any] | None = None,
) -> Checkpoint:
    """The run `run` as it stands: tensors that training goes on to change, not copies.

    optimizer: its whole state_dict. evaluated: as in Checkpoint.

    Raises:
        OSError: a line of metrics.jsonl could not be written.
    """
    progress.metrics, progress.log_offset = metrics.state_dict(), log.offset()
    return Checkpoint(run, config, progress, model.state_dict(), optimizer, evaluated)


def restore(saved: Checkpoint, metrics: StreamMetrics, model: Any, optimizer: Any) -> Progress:
    """Put what was saved into these three; returns the progress of the run."""
    model.load_state_dict(saved.model)
    put_state(optimizer, saved.optimizer)
    metrics.load_state_dict(saved.progress.metrics)
    return saved.progress


def put_state(optimizer: Any, saved: dict[str, Any]) -> None:
    """`optimizer.load_state_dict(saved)`; afterwards none of its tensors lies in a mapped file.

    torch copies what goes to a GPU, and takes the rest as it is. State that lay in a file would
    keep its space on the disk when it is removed, and would be lost with it on a network.
    """
    import torch

    optimizer.load_state_dict(saved)
    with torch.no_grad():
        for x in _tensors(optimizer.state_dict()):
            if x.device.type == "cpu":
                x.set_(x.untyped_storage().clone(), x.storage_offset(), x.shape, x.stride())


def _tensors(value: Any) -> Iterator[Any]:
    """All tensors in dicts, lists and tuples."""
    if hasattr(value, "untyped_storage"):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _tensors(each)


def save(folder: Path, keep: int, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`; returns its path.

    Raises:
        OSError: it cannot be written (a full disk, say); the earlier ones stay as they are.
    """
    import torch

    content = {**vars(checkpoint), "progress": vars(checkpoint.progress)}
    if checkpoint.evaluated is None:  # as in files of earlier versions, which can read it
        del content["evaluated"]
    return write(folder, checkpoint.progress.step, keep, lambda file: torch.save(content, file))


def load(path: Path, run: str | None = None, *, mmap: bool = False) -> Checkpoint:
    """A saved checkpoint, on the CPU; with `mmap` tensors lie in the file, and are read when used.

    Raises:
        RecordError: it holds what cannot be loaded safely, or belongs to a run other than `run`.
    """
    import torch

    try:
        content: dict[str, Any] = torch.load(path, "cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise RecordError(
            f"{path} cannot be read; the optimizer's state may hold more than tensors and plain "
            f"values: {str(error).splitlines()[0]}"
        ) from None
    if run is not None and content["run"] != run:
        raise RecordError(f"{path} is of run {content['run']}, not of {run}; move it away")
    return Checkpoint(**{**content, "progress": Progress(**content["progress"])})


def write(folder: Path, step: int, keep: int, content: Callable[[Any], object]) -> Path:
    """Call `content(file)` on a temporary file, sync it, rename it; keep the newest `keep` files.

    Raises:
        OSError: it cannot be written; the earlier ones stay as they are.
    """
    folder.mkdir(exist_ok=True)
    partial = folder / "partial"
    hashing = None
    try:
        with partial.open("wb") as file:
            hashing = _HashingFile(file)
            content(hashing)
            path = folder / f"step-{step:08d}-{hashing.digest.hexdigest()[:16]}.pt"
            publish(file, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        cause = (hashing and hashing.error) or error
        raise OSError(f"cannot write a checkpoint in {folder}: {cause}") from error
    others = [old for old in found(folder) if old != path]
    for old in others[keep - 1 :]:
        old.unlink()
    return path


def step_of(path: Path) -> int:
    """The step of a checkpoint, from its name."""
    return int(path.name.split("-")[1])


def found(folder: Path) -> list[Path]:
    """All checkpoints, newest first."""
    return sorted(folder.glob("step-*.pt"), key=lambda p: (step_of(p), p.stat().st_mtime_ns))[::-1]


def newest_whole(folder: Path) -> Path | None:
    """The newest whose content matches its name; None without any checkpoint.

    A torn or corrupt one is named on stderr and renamed to .torn.

    Raises:
        RecordError: there are some, and none is whole.
    """
    for path in found(folder):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if path.stem.endswith(digest[:16]):
            return path
        torn = path.rename(path.with_suffix(".torn"))  # out of the way of those that are whole
        print(f"warning: {torn} is torn or corrupt; trying the one before it", file=sys.stderr)
    if any(folder.glob("*.torn")):
        raise RecordError(
            f"no checkpoint in {folder} is whole; remove {folder.parent} to start again"
        )
    return None


class _HashingFile:
    """Writes through to a file and hashes on the way, so that nothing is read back."""

    def __init__(self, file: Any) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, chunk: bytes) -> int:
        self.digest.update(chunk)
        try:
            return self.file.write(chunk)
        except OSError as error:  # torch.save reports it without its cause
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def checksum(model: Any) -> int:
    """Sum of the bits of all parameters, each read as an integer; from -2^63 to 2^63 - 1.

    It is exact, so equal weights have equal sums, and one flipped bit changes it. Takes a pass over
    the memory of the weights, on their device.
    """
    import torch

    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = [p.detach().view(integers[p.element_size()]) for p in model.parameters()]
    return int(torch.stack([part.sum(dtype=torch.int64) for part in bits]).sum())


def weights_hash(model: Any) -> str:
    """sha256 of a module's parameters in the order of their names: equal starts, equal hashes."""
    digest = hashlib.sha256()
    for name, p in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(p.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
