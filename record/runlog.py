"""The record of a run on disk: rank 0 of the trainer writes it, anyone may read it.

docs/record.md describes every file and field. In short, the run's directory holds:

    config.toml      the resolved configuration, as the trainer read it
    record.json      facts: hashes, the list of launches with their environments, the W&B run
    metrics.jsonl    one JSON object per line: {"step": s, name: value, ...}; the source of truth
    diagnose.jsonl   what updates showed of every tensor, with [diagnose] (record/inside.py)
    sequences.npz    the final loss of each held-out sequence (record/sequences.py)
    sharpness.json   what was measured at checkpoints afterwards (record/sharpness.py)
    summary.json     how the latest launch ended, and the numbers of the run; absent while it runs
    checkpoints/     what resuming needs (record/checkpoints.py)
    lock             held by the live process
    wandb/           what Weights & Biases keeps locally; a mirror of the above
    tensorboard/     event files; another mirror (record/tensorboard.py)

Floats have their shortest exact decimal form, so reading gives the same bits. JSON has no NaN or
infinity: such a value becomes null, and the line's "nonfinite" table names it
({"train/loss": null, "nonfinite": {"train/loss": "nan"}}); `read_metrics` and `read_summary`
restore it.
"""

import contextlib
import json
import math
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, ClassVar, Literal, get_args

import storage
from record.inside import InsideFile
from record.machine import machine_now
from record.tensorboard import Curves
from record.wandb_mirror import Mirror, WandbOptions
from record.writer import Writer
from storage import LockedError, write_atomically

CONFIG, RECORD, METRICS, SUMMARY = "config.toml", "record.json", "metrics.jsonl", "summary.json"
Status = Literal["finished", "diverged", "stopped"]
STATUSES: tuple[Status, ...] = get_args(Status)
# of train_gpt2.py; 1: another rank was lost, 2: user error. W&B shows all but 0 as failed.
EXIT_CODES: dict[Status, int] = {"finished": 0, "stopped": 0, "diverged": 3}


class RecordError(ValueError):
    """A run's record cannot be written or read as asked; one line that says how to mend it."""


# Hashes of the data, in words.
HASHED = {
    "batches": "the first batches",
    "val": "the val text",
    "test": "the test text",
    "data": "all shards",
    "hellaswag": "the questions",
}


class RunLog:
    """Writes the record of a run: facts, metrics, summary and their mirrors; lives on rank 0.

    directory: created if absent. Take `lock(directory)` first.
    config_toml: text of config.toml. config: the same as nested dicts, for W&B.
    resume_offset: what `offset()` gave for the checkpoint; metrics.jsonl is cut back
    to it. None starts afresh: it replaces the metrics and facts of an earlier attempt that never
    reached a checkpoint, and keeps its entry in `launches`.
    wandb: where to mirror, see WandbOptions. tensorboard: whether to mirror there too.
    held: the lock on the directory, released at the end.

    Raises:
        RecordError: metrics.jsonl does not hold what the checkpoint says it holds.
    """

    def __init__(
        self,
        directory: Path,
        *,
        config_toml: str,
        config: dict[str, Any],
        resume_offset: int | None,
        wandb: WandbOptions,
        tensorboard: bool = False,
        held: IO[str] | None = None,
    ) -> None:
        self.directory, self.held = directory, held
        self.lost_line: OSError | None = None  # why a line could not be written
        self.writer = Writer()  # of checkpoints
        self.ended = False
        directory.mkdir(parents=True, exist_ok=True)
        self.metrics = _open_metrics(directory / METRICS, resume_offset)
        self.inside = InsideFile(directory, lambda: _updates(directory))
        (directory / SUMMARY).unlink(missing_ok=True)  # of an earlier launch
        write_atomically(directory / CONFIG, config_toml)
        old = read_record(directory) or {}
        self.facts = dict(old) if resume_offset is not None else {}
        launch = {
            "started": now(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "resume_offset": resume_offset,
            # counted by launch or torchrun after a rank died; 0 for a start by hand or scheduler
            "restart": int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)),
        }
        self.facts["launches"] = [*old.get("launches", []), launch]
        self.mirror = Mirror(directory, wandb, config, self.facts.get("wandb", {}).get("id"))
        self.record(wandb=self.mirror.facts)
        self.curves = _curves(directory) if tensorboard else None

    def log(
        self, step: int, values: Mapping[str, Any], inside: Mapping[str, Any] | None = None
    ) -> None:
        """Append one line for `step` and hand it to the operating system; then mirror it.

        inside: what the update showed of every tensor, as optim.Inside found it; it goes to a file
        of its own, and a few numbers of it into the line.

        A killed process loses no line that log() returned from; a lost machine may lose those
        after the last sync(). A line that cannot be written sets `failure`: the caller stops at
        the next step boundary, where all ranks can.

        Raises:
            RecordError: a value is not a number, string, bool or None.
        """
        if "step" in values:
            raise RecordError(f"metric name 'step' at step {step} is reserved; rename the metric")
        try:
            if inside:
                values = {**values, **self.inside.log(step, inside)}
            self.metrics.write(encode({"step": step, **values}) + b"\n")
            self.metrics.flush()
        except OSError as error:
            self.lost_line = self.lost_line or error
        self.mirror.log(step, values)
        if self.curves:
            self.curves.log(step, values)

    @property
    def failure(self) -> BaseException | None:
        """Why a line or a checkpoint could not be written, once that is known."""
        return self.lost_line or self.writer.failure

    def offset(self) -> int:
        """Bytes of metrics.jsonl so far, which a checkpoint stores; `sync` comes before its name.

        Raises:
            OSError: a line could not be written.
        """
        if self.lost_line:
            raise OSError(f"cannot write {self.directory / METRICS}: {self.lost_line}")
        return self.metrics.tell()

    def sync(self) -> None:
        """Make all lines so far safe on disk; any thread may call it.

        Raises:
            OSError: they are not.
        """
        os.fsync(self.metrics.fileno())
        self.inside.sync()

    def begin(self, hashes: Mapping[str, str], environment: Mapping[str, Any]) -> None:
        """Record what this launch starts with; the first launch's hashes stay.

        hashes: by the names in HASHED, and of the initial "weights" where the run starts at step 0.
        environment: what it runs on.

        Raises:
            RecordError: the data or the initial weights are not those of the first launch.
        """
        recorded = self.facts.get("hashes", {})
        require_same(self.directory, recorded, hashes)
        self.facts["launches"][-1]["at_start"] = machine_now()
        self.record(hashes={**hashes, **recorded}, environment=dict(environment))

    def record(self, **facts: Any) -> None:
        """Merge facts into record.json, whole values by name; the file is replaced atomically.

        `environment` is a fact of this launch, and goes into its entry in `launches`.
        """
        if "environment" in facts:
            self.facts["launches"][-1]["environment"] = facts.pop("environment")
        self.facts.update(facts)
        write_atomically(self.directory / RECORD, encode(self.facts, indent=1).decode() + "\n")

    def finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Write summary.json, end the launch in record.json, then end the mirror (bounded time).

        status: "finished" (all updates done), "diverged" (a non-finite value ended it) or
        "stopped" (a signal, after a checkpoint).

        Raises:
            RecordError: there is no such status, or the end cannot be written.
        """
        if status not in STATUSES:
            raise RecordError(f"status {status!r} is not one of {', '.join(STATUSES)}")
        text = encode({"status": status, **summary}, indent=1).decode() + "\n"
        try:
            self.writer.wait()
            self.offset()
            self.sync()
            self.metrics.close()
            write_atomically(self.directory / SUMMARY, text)
            end = {"ended": now(), "status": status, "at_end": machine_now()}
            self.facts["launches"][-1] |= end
            self.record()
            # a reader of W&B needs these to know that two arms may be compared
            ran = self.facts["launches"][-1].get("environment", {})
            hardware = {k: ran[k] for k in ("device", "dtype") if k in ran}
            told = {**summary, "hashes": self.facts.get("hashes"), "hardware": hardware}
            self.mirror.finish(status, EXIT_CODES[status], told)
            self.record(wandb=self.mirror.facts)
        except OSError as error:
            raise RecordError(
                f"cannot write the end of the record in {self.directory}: {error}; make room, then "
                "give the same command again"
            ) from None
        self.ended = True
        self._release()

    def _release(self) -> None:
        """Close what is still open, and release the directory's lock."""
        self.writer.close()
        self.inside.close()
        if self.curves:
            self.curves.close()
        if self.held:
            self.held.close()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """After an exception: end the mirror in bounded time, and write no summary.json."""
        if self.ended:
            return
        self.writer.close()
        with contextlib.suppress(OSError):  # a full disk may be the very error that led here
            self.metrics.close()
            self.facts["launches"][-1] |= {"ended": now(), "status": "failed", "error": repr(error)}
            self.record()
        self.mirror.finish("failed", 1, {})
        self._release()


class NoLog:
    """RunLog for the ranks that do not write: its methods do nothing."""

    failure: ClassVar[BaseException | None] = None
    facts: ClassVar[dict[str, Any]] = {}

    def begin(self, hashes: Mapping[str, str], environment: Mapping[str, Any]) -> None:
        """Nothing."""

    def log(
        self, step: int, values: Mapping[str, Any], inside: Mapping[str, Any] | None = None
    ) -> None:
        """Nothing."""

    def offset(self) -> int:
        """Zero; only rank 0's offset enters a checkpoint."""
        return 0

    def sync(self) -> None:
        """Nothing."""

    def record(self, **facts: Any) -> None:
        """Nothing."""

    def finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Nothing."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Nothing."""


Log = RunLog | NoLog  # of any rank


def _curves(directory: Path) -> Curves:
    """TensorBoard's files, which go on where metrics.jsonl does.

    Raises:
        RecordError: the package is missing.
    """
    try:
        return Curves(directory, read_metrics(directory))
    except ImportError as error:
        raise RecordError(
            f"log.tensorboard = true needs a package that is missing ({error}): pip install "
            "tensorboard, or leave the key out"
        ) from None


def _open_metrics(path: Path, resume_offset: int | None) -> IO[bytes]:
    """Open metrics.jsonl for appending, cut back to `resume_offset` bytes (None: empty).

    Raises:
        RecordError: the file is shorter than that, or no line ends there.
    """
    file = path.open("a+b")
    size, keep = file.seek(0, os.SEEK_END), resume_offset or 0
    trouble = f"has {size} bytes but the checkpoint was written after {keep}"
    if size >= keep:
        file.seek(max(0, keep - 1))
        if keep == 0 or file.read(1) == b"\n":
            file.truncate(keep)
            file.seek(0, os.SEEK_END)
            return file
        trouble = f"has no line that ends at byte {keep}, where the checkpoint was written"
    file.close()
    raise RecordError(
        f"{path} {trouble}; restore the file, or delete {path.parent} to start the run again"
    )


def _updates(directory: Path) -> int:
    """Updates that metrics.jsonl holds."""
    steps = [line["step"] for line in read_metrics(directory) if "train/loss" in line]
    return steps[-1] + 1 if steps else 0


def require_same(directory: Path, recorded: Mapping[str, str], hashes: Mapping[str, str]) -> None:
    """Compare hashes with those that the run in `directory` began with; new ones are not compared.

    Raises:
        RecordError: one differs.
    """
    for name, current in hashes.items():
        if (first := recorded.get(name, current)) == current:
            continue
        if name == "weights":
            raise RecordError(
                f"the initial weights are not those with which this run began: their hash is"
                f" {current[:8]}, not {first[:8]}; bring back the versions of code and torch that"
                f" record.json names, or remove {directory} to start again"
            )
        if name == "hellaswag":
            raise RecordError(
                f"the questions in eval.hellaswag are not those that the run in {directory} began"
                f" with: their hash is {current[:8]}, not {first[:8]}; bring the old file back, or"
                " leave eval.hellaswag out"
            )
        raise RecordError(
            f"the data in data.dir are not those that the run in {directory} began with: the hash"
            f" of {HASHED.get(name, name)} is {current[:8]}, not {first[:8]}; bring the old tokens"
            " back, or give another --log.dir to train on these"
        )


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl, floats exact, non-finite ones restored; [] without the file.

    A last line that a crash tore is left out.

    Raises:
        RecordError: an earlier line is damaged.
    """
    path = directory / METRICS
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(decode(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise RecordError(
                f"{path}:{number} is not a JSON object ({line[:40]!r}); only the last line may be "
                f"torn: restore the file, or delete the run and start it again"
            ) from error
    return records


def read_summary(directory: Path) -> dict[str, Any] | None:
    """summary.json with its `status`; None while the run goes on, or if it was killed."""
    return read_json(directory / SUMMARY)


def read_record(directory: Path) -> dict[str, Any] | None:
    """record.json; None before the first launch."""
    return read_json(directory / RECORD)


def read_json(path: Path) -> dict[str, Any] | None:
    """One JSON object, non-finite floats restored; None without the file."""
    try:
        return decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):  # a new launch removes it at any moment
        return None
    except ValueError as error:
        raise RecordError(f"{path} is not a JSON object ({error}); delete it") from error


def lock(directory: Path, wait_seconds: float) -> IO[str]:
    """Hold the run's directory for this process: keep the returned file for as long as the run.

    Raises:
        RecordError: another process holds it; the line names that process.
    """
    try:
        return storage.lock(directory, wait_seconds)
    except LockedError as error:
        raise RecordError(
            f"{error} (waited {wait_seconds:g} s); stop that process or choose another "
            "configuration"
        ) from None


def encode(values: Mapping[str, Any], indent: int | None = None) -> bytes:
    """One JSON object; non-finite floats at its top level become null plus a "nonfinite" table.

    Raises:
        RecordError: JSON cannot hold one of the values.
    """
    try:
        return json.dumps(values, allow_nan=False, indent=indent).encode()
    except ValueError:
        pass  # a non-finite float: rare, so only then look for it
    except TypeError as error:
        raise RecordError(f"cannot record {dict(values)!r}: {error}; give plain numbers") from error
    odd = {k: str(v) for k, v in values.items() if isinstance(v, float) and not math.isfinite(v)}
    plain = {k: None if k in odd else v for k, v in values.items()}
    try:
        return json.dumps(plain | {"nonfinite": odd}, allow_nan=False, indent=indent).encode()
    except ValueError as error:
        raise RecordError(f"cannot record {dict(values)!r}: {error}") from error


def decode(text: bytes) -> dict[str, Any]:
    """The values that `encode` wrote.

    Raises:
        ValueError: `text` is not one JSON object.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"expected an object, not {type(values).__name__}")
    return restored(values)


def restored(values: dict[str, Any]) -> dict[str, Any]:
    """`values` itself, with the non-finite floats of its "nonfinite" table put back."""
    values.update({name: float(v) for name, v in values.pop("nonfinite", {}).items()})
    return values


def now() -> str:
    """UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
