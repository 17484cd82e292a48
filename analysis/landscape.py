"""The loss along a line between weights, and on a plane through them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.loss import Loss
from analysis.trained import Trained
from configs import ConfigError
from train_gpt2 import GPT

Floats = NDArray[np.float64]
FLAT = 1e-6  # sine of an angle below which three weights lie on a line, in float32


def check_alike(first: Trained, other: Trained) -> None:
    """Refuse models between whose weights there is no line.

    Raises:
        ConfigError: their shapes differ; one line.
    """
    ours, theirs = first.model.shape.model_dump(), other.model.shape.model_dump()
    if differ := [f"{k} {ours[k]} and {theirs[k]}" for k in ours if ours[k] != theirs[k]]:
        raise ConfigError(
            f"{first.source} and {other.source} have different shapes ({', '.join(differ)}); give"
            " weights of one shape and vocabulary"
        )


def along_line(loss: Loss, ends: tuple[Tensor, Tensor], places: Floats) -> Floats:
    """The loss at (1 - t) a + t b for each t of `places`; the weights stay as they are."""
    return _losses(loss, (torch.lerp(*ends, float(t)) for t in places))


def barrier(places: Floats, losses: Floats) -> float:
    """How far the loss rises above the straight line between its two ends, nats per token.

    Source: Entezari et al., "The Role of Permutation Invariance in Linear Mode Connectivity of
    Neural Networks", arXiv:2110.06296: max L(t) - ((1 - t) L(0) + t L(1)).
    """
    return float((losses - ((1 - places) * losses[0] + places * losses[-1])).max())


@dataclass(frozen=True)
class Plane:
    """The weights origin + x * across + y * up; marks: (x, y) of weights that lie in it."""

    origin: Tensor
    across: Tensor
    up: Tensor
    marks: Sequence[tuple[float, float]]


def plane_through(a: Tensor, b: Tensor, c: Tensor) -> Plane:
    """The plane of three weights; x and y are distances from `a`, x towards `b`.

    Source: Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs",
    arXiv:1802.10026 (Gram-Schmidt).

    Raises:
        ConfigError: they lie on a line; one line.
    """
    width = torch.linalg.vector_norm(b - a)
    across = (b - a) / width
    along = (c - a) @ across
    up = (c - a) - along * across
    height = torch.linalg.vector_norm(up)
    if not width > 0 or not height > FLAT * torch.linalg.vector_norm(c - a):
        raise ConfigError("the three weights lie on one line, through which there is no one plane")
    marks = [(0.0, 0.0), (float(width), 0.0), (float(along), float(height))]
    return Plane(a, across, up / height, marks)


def random_plane(model: GPT, weights: Tensor, seed: int) -> Plane:
    """Two random directions through `weights`, with the norms of the model's filters.

    Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", arXiv:1712.09913:
    each row of a direction has the norm of that row of weights; vectors (biases, norms) stay fixed.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = []
    for _ in range(2):
        pieces = []
        for p in model.parameters():
            drawn = torch.randn(p.shape, generator=generator).to(p)
            if p.ndim < 2:
                pieces.append(torch.zeros_like(p).reshape(-1))
                continue
            scale = p.detach().norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
            pieces.append((drawn * scale).reshape(-1))
        directions.append(torch.cat(pieces))
    return Plane(weights, directions[0], directions[1], [(0.0, 0.0)])


def on_plane(loss: Loss, plane: Plane, across: Floats, up: Floats) -> Floats:
    """The loss at each (x, y), (len(up), len(across)); the weights stay as they are."""
    places = [(float(x), float(y)) for y in up for x in across]
    points = (plane.origin + x * plane.across + y * plane.up for x, y in places)
    return _losses(loss, points).reshape(len(up), len(across))


def _losses(loss: Loss, points: Iterable[Tensor]) -> Floats:
    """The loss at each of `points`; the weights stay as they are.

    Raises:
        ConfigError: it is not finite somewhere; one line.
    """
    before, found = loss.weights, []
    try:
        for point in points:
            loss.put(point)
            found.append(loss.value())
    finally:
        loss.put(before)
    if unknown := int(np.count_nonzero(~np.isfinite(found))):
        raise ConfigError(
            f"the loss is not finite at {unknown} of {len(found)} places; give other checkpoints,"
            " or a plane a smaller --span"
        )
    return np.array(found)
