"""`python -m analysis line` and `plane`: the loss between runs, as numbers and as figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis import drawing
from analysis.batch import first_sequences, rows_at_once
from analysis.landscape import (
    Floats,
    along_line,
    barrier,
    check_alike,
    on_plane,
    plane_through,
    random_plane,
)
from analysis.loss import Loss
from analysis.progress import bar
from analysis.trained import Origin, Trained, trained
from configs import ConfigError

MARGIN = 0.2  # of the extent of three weights, shown around them


@dataclass(frozen=True)
class Settings:
    """How finely, on which text, and where to. span, seed: of random directions."""

    tokens: int
    points: int
    out: Path
    device: str
    split: str = "val"
    span: float = 1.0
    seed: int = 0


def line(sources: list[str], settings: Settings) -> None:
    """Print and draw the loss along the straight line between two models' weights.

    Raises:
        ConfigError: a mistake of the user; one line.
        DataError: the data are gone or damaged.
        RecordError: a checkpoint is damaged.
        OSError: a file cannot be written.
    """
    first, last = found = _models(sources, settings.device)
    origin = _with_data(found)
    batches = [first_sequences(origin.config, split, settings.tokens) for split in ("train", "val")]
    places, losses = np.linspace(0, 1, settings.points), {}
    rows = rows_at_once(first.model)
    with bar("line", total=2 * settings.points) as progress:
        for batch in batches:
            loss = Loss.of(first.model, batch.rows, rows, progress.update)
            ends = loss.weights, Loss.of(last.model, batch.rows, rows).weights
            losses[batch.split] = along_line(loss, ends, places)
    for split, values in losses.items():
        print(
            f"{split} loss: {values[0]:.4f} and {values[-1]:.4f} at the ends, {values.max():.4f} at"
            f" most; barrier {barrier(places, values):.4f}"
        )
    columns = {"t": places} | {f"{split}_loss": values for split, values in losses.items()}
    plot = drawing.line(places, losses, (first.source, last.source))
    drawing.save(settings.out, plot, _rows(columns))


def plane(sources: list[str], settings: Settings) -> None:
    """Draw the loss on a plane: through three models' weights, or in random directions from one.

    Raises:
        ConfigError, DataError, RecordError, OSError: as `line`.
    """
    found = _models(sources, settings.device)
    batch = first_sequences(_with_data(found).config, settings.split, settings.tokens)
    model = found[0].model
    with bar("plane", total=settings.points**2) as progress:
        loss = Loss.of(model, batch.rows, rows_at_once(model), progress.update)
        vectors = [Loss.of(each.model, batch.rows, 1).weights for each in found]
        if len(found) == 1:
            shown = random_plane(model, vectors[0], settings.seed)
            x = y = np.linspace(-settings.span, settings.span, settings.points)
        else:
            shown = plane_through(*vectors)
            x, y = (
                _around(np.array(each), settings.points) for each in zip(*shown.marks, strict=True)
            )
        losses = on_plane(loss, shown, x, y)
    names = [each.source for each in found]
    lowest = np.unravel_index(losses.argmin(), losses.shape)
    print(
        f"{batch.split} loss from {losses.min():.4f} (at {x[lowest[1]]:.3g}, {y[lowest[0]]:.3g}) to"
        f" {losses.max():.4f}, on {batch.tokens:,} tokens"
    )
    grid = np.meshgrid(x, y)
    columns = {"x": grid[0].ravel(), "y": grid[1].ravel(), f"{batch.split}_loss": losses.ravel()}
    marks = [(name, *place) for name, place in zip(names, shown.marks, strict=True)]
    plot = drawing.plane(x, y, losses, marks, batch.split)
    drawing.save(settings.out, plot, _rows(columns))


def _models(sources: list[str], device: str) -> list[Trained]:
    """The models, of one shape."""
    found = [trained(source, device) for source in sources]
    for other in found[1:]:
        check_alike(found[0], other)
    return found


def _with_data(found: list[Trained]) -> Origin:
    """The first that has data: published weights come without."""
    for each in found:
        if each.origin:
            return each.origin
    raise ConfigError("published weights come without data; give at least one run, too")


def _around(marks: Floats, points: int) -> Floats:
    """Places from below the lowest mark to above the highest."""
    room = MARGIN * (marks.max() - marks.min())
    return np.linspace(marks.min() - room, marks.max() + room, points)


def _rows(columns: dict[str, Floats]) -> list[dict[str, float]]:
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]
