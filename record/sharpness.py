"""What `python -m analysis sharpness` leaves in a run's folder: sharpness.json, a list.

    for each in read(run):
        print(each.step, each.loss, each.eigenvalues)

A measurement replaces an earlier one of the same step, text and rescaling.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from configs.validation import Strict
from record.runlog import RecordError
from storage import write_atomically

FILE = "sharpness.json"


class Neighbourhood(Strict):
    """Sharpness of Keskar et al. in a box of `epsilon`, percent; all directions, and a subspace."""

    epsilon: float
    all_directions: float
    subspace: float


class Preconditioned(Strict):
    """Largest eigenvalue of the Hessian scaled as the optimizer scales the gradient.

    lr: of hidden matrices in the last update. limit: what lr times the eigenvalue may be for steps
    on a quadratic to be stable: 2 without momentum.
    """

    eigenvalue: float
    lr: float
    limit: float


class Sharpness(Strict):
    """Measures of one checkpoint on one text; None and () where a measure was left out.

    checkpoint: 16 hex digits of its sha256. text: sha256 of the sequences. rescaled: alpha of
    analysis.rescaling; 1: the weights as they are. not_preconditioned: why that is not known.
    adaptive: nats per token at `rho`. draws: of the trace. passes: of each ascent.
    """

    step: int
    checkpoint: str
    split: str
    tokens: int
    text: str
    rescaled: float
    loss: float
    eigenvalues: tuple[float, ...]
    trace: float | None
    trace_error: float | None
    preconditioned: Preconditioned | None
    not_preconditioned: str | None
    neighbourhoods: tuple[Neighbourhood, ...]
    dimensions: int
    adaptive: float | None
    rho: float
    draws: int
    passes: int
    seed: int
    device: str
    torch: str
    seconds: float

    @property
    def setting(self) -> tuple[int, str, str, float]:
        """What it is a measurement of."""
        return self.step, self.split, self.text, self.rescaled

    @property
    def only_loss(self) -> bool:
        """Whether all measures but the loss were left out."""
        return not self.eigenvalues and self.trace is None and not self.passes


_LIST = TypeAdapter(tuple[Sharpness, ...])


def read(directory: Path) -> tuple[Sharpness, ...]:
    """All measurements of a run; () without the file.

    Raises:
        RecordError: the file cannot be read or does not fit; one line.
    """
    path = directory / FILE
    try:
        return _LIST.validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(": ")
        remedy = "delete it, and measure again"
        raise RecordError(f"{path} is damaged ({what}); {remedy}") from None


def add(directory: Path, new: Sequence[Sharpness]) -> Path:
    """Add measurements, in the order of steps; those of the same setting are replaced.

    Raises:
        RecordError: the file that is there is damaged.
        OSError: it cannot be written.
    """
    found = {each.setting: each for each in (*read(directory), *new)}
    kept = [each.model_dump() for _, each in sorted(found.items())]
    write_atomically(directory / FILE, json.dumps(kept, indent=1) + "\n")
    return directory / FILE
