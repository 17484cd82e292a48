"""What updates showed of every tensor, with [diagnose]: the file diagnose.jsonl of a run.

The first line names the tensors and their roles; then there is a line for each measured update,
whose lists have a number for each tensor, with six digits; null where it is not defined, such as a
ratio to a gradient of zero. docs/record.md has the names. "noise" holds the two estimates of the
gradient noise scale, exact, since their moving averages go on where a resumed run goes on.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

FILE = "diagnose.jsonl"
NAMES = ("tensors", "roles")  # of the first line
CURVES = ("update_ratio", "gain", "cosine", "withheld")  # which metrics.jsonl has too, by role
NOISE_DECAY = 0.9  # of the moving averages, for each measured update

Columns = dict[str, NDArray[np.float64]]


class Noise:
    """The gradient noise scale: the ratio of moving averages, not an average of ratios.

    Source: McCandlish et al., arXiv:1812.06162, appendix A.1. The averages begin at zero, which
    the ratio does not show.
    """

    def __init__(self) -> None:
        self.trace = self.square = 0.0

    def update(self, noise: Mapping[str, float]) -> float | None:
        """Take in an estimate; the noise scale in tokens, None while |G|^2 is not above zero."""
        self.trace += (1 - NOISE_DECAY) * (noise["trace"] - self.trace)
        self.square += (1 - NOISE_DECAY) * (noise["gradient_square"] - self.square)
        return self.trace / self.square if self.square > 0 else None


class InsideFile:
    """Writes diagnose.jsonl; without a measurement there is no such file.

    directory: the run's. updates: how many metrics.jsonl holds; lines of later ones are cut off,
    since the run does these updates again.
    """

    def __init__(self, directory: Path, updates: Callable[[], int]) -> None:
        self.path, self.noise = directory / FILE, Noise()
        self.file: IO[bytes] | None = None
        if self.path.exists():
            self._go_on(updates())

    def _go_on(self, updates: int) -> None:
        kept = 0
        with self.path.open("r+b") as file:
            for line in file if updates else ():
                found = _decoded(line)
                if found is None or found.get("step", -1) >= updates:
                    break
                kept += len(line)
                if "noise" in found:
                    self.noise.update(found["noise"])
            file.truncate(kept)

    def log(self, step: int, found: Mapping[str, Any]) -> dict[str, float | None]:
        """Append a line for update `step`; returns what metrics.jsonl holds of it.

        Raises:
            OSError: the line cannot be written.
        """
        if self.file is None:
            self.file = self.path.open("ab")
            if not self.file.tell():
                self._write({name: found[name] for name in NAMES})
        columns = {k: v for k, v in found.items() if k not in (*NAMES, "noise")}
        noise = {"noise": found["noise"]} if "noise" in found else {}
        self._write({"step": step, **{k: _rounded(v) for k, v in columns.items()}, **noise})
        self.file.flush()
        curves: dict[str, float | None] = {}
        for name in CURVES:
            for role in dict.fromkeys(found["roles"]) if name in columns else ():
                values = zip(columns[name], found["roles"], strict=True)
                finite = [x for x, own in values if own == role and math.isfinite(x)]
                curves[f"inside/{name}_{role}"] = median(finite) if finite else None
        if noise:
            curves["inside/noise_scale"] = self.noise.update(found["noise"])
        return curves

    def _write(self, values: Mapping[str, Any]) -> None:
        assert self.file is not None
        self.file.write(json.dumps(values, allow_nan=False).encode() + b"\n")

    def sync(self) -> None:
        """Make sure that all lines are on disk."""
        if self.file is not None:
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [float(f"{x:.6g}") if math.isfinite(x) else None for x in values]


def _decoded(line: bytes) -> dict[str, Any] | None:
    """A whole line; None for a torn or damaged one."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


# ------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True)
class Measured:
    """diagnose.jsonl. columns: by name, (updates, tensors), NaN where null.

    noise: "gradient_square" and "trace" of each update, (updates,), NaN where not measured.
    """

    steps: NDArray[np.int64]
    tensors: tuple[str, ...]
    roles: tuple[str, ...]
    columns: Columns
    noise: Columns

    @property
    def layers(self) -> list[int | None]:
        """The number of each tensor's block; None for embeddings and the last norm."""
        found = (re.match(r"h\.(\d+)\.", name) for name in self.tensors)
        return [int(match[1]) if match else None for match in found]


def read(directory: Path) -> Measured | None:
    """What diagnose.jsonl holds; None without it, or before its first whole line.

    Lines after a torn or damaged one are left out.
    """
    try:
        with (directory / FILE).open("rb") as file:
            head, *lines = list(_whole(file)) or [{}]
    except FileNotFoundError:
        return None
    if not lines or not all(name in head for name in NAMES):
        return None
    names = [k for k in lines[0] if k not in ("step", "noise")]
    columns = {k: np.array([x.get(k) for x in lines], np.float64) for k in names}
    noise = {
        k: np.array([x.get("noise", {}).get(k) for x in lines], np.float64)
        for k in ("gradient_square", "trace")
    }
    steps = np.array([x["step"] for x in lines])
    return Measured(steps, tuple(head["tensors"]), tuple(head["roles"]), columns, noise)


def _whole(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    for line in file:
        if (found := _decoded(line)) is None:
            return
        yield found
