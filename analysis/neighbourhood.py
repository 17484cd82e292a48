"""How far the loss rises near the weights: Keskar's sharpness, and a scale-invariant one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.loss import Loss


@dataclass(frozen=True)
class Subspace:
    """A random subspace: the vectors A y, where A has one entry other than 0 in each row.

    The entries are +sqrt(p) or -sqrt(p) in a random one of the p columns, so that they have mean 0
    and variance 1, as independent normal ones have, and A takes 2 n numbers, not p n. Its columns
    are orthogonal.

    columns: of each row's entry, (weights,). signs: the entries, (weights,).
    """

    columns: Tensor
    signs: Tensor
    dimensions: int

    @classmethod
    def drawn(cls, like: Tensor, dimensions: int, seed: int) -> Subspace:
        """For weights `like`, on their device; the same one on every device."""
        generator = torch.Generator().manual_seed(seed)
        columns = torch.randint(dimensions, like.shape, generator=generator)
        signs = torch.randint(2, like.shape, generator=generator).mul_(2).sub_(1)
        return cls(columns.to(like.device), math.sqrt(dimensions) * signs.to(like), dimensions)

    def lifted(self, y: Tensor) -> Tensor:
        """A y."""
        return y[self.columns] * self.signs

    def restricted(self, x: Tensor) -> Tensor:
        """A^T x."""
        return x.new_zeros(self.dimensions).index_add_(0, self.columns, x * self.signs)

    def coordinates(self, x: Tensor) -> Tensor:
        """A^+ x, by the pseudo-inverse."""
        norms = self.restricted(self.signs)  # squared, of the columns
        return self.restricted(x) / norms.clamp(min=1)


def keskar(loss: Loss, epsilon: float, passes: int, subspace: Subspace | None = None) -> float:
    """Sharpness of Keskar et al., "On Large-Batch Training for Deep Learning", arXiv:1609.04836.

    Metric 2.1: 100 (max L(w + A y) - L(w)) / (1 + L(w)) over |y_i| <= epsilon (|(A^+ w)_i| + 1).
    Without a subspace A is the identity. Differs: the paper takes ten iterations of L-BFGS-B.
    """
    weights = loss.weights
    own = weights if subspace is None else subspace.coordinates(weights)
    start, top = highest(loss, epsilon * (own.abs() + 1), passes, subspace)
    return 100 * (top - start) / (1 + start)


def adaptive(loss: Loss, rho: float, passes: int) -> float:
    """Adaptive sharpness: max L(w + e) - L(w) over |e_i| <= rho |w_i|, in nats per token.

    Source: Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning
    of Deep Neural Networks", arXiv:2102.11600, with T_w = diag(|w|) and the maximum norm.
    Weights that are scaled element by element without a change of the function have the same one.
    """
    start, top = highest(loss, rho * loss.weights.abs(), passes)
    return top - start


def highest(
    loss: Loss, reach: Tensor, passes: int, subspace: Subspace | None = None
) -> tuple[float, float]:
    """The loss at the weights, and the highest that is found within `reach` of them.

    By projected ascent: from the highest point so far, a step along the signs of the gradient, in
    units of `reach`, cut off at the box; where the loss does not rise, the step is halved. The
    weights stay as they are.

    Args:
        loss: at the middle of the box.
        reach: half the widths of the box, >= 0, one per weight or per dimension of the subspace.
        passes: gradients taken at most.
        subspace: in which to look; without one, all directions.
    """
    middle = loss.weights
    start, gradient = loss.gradient()
    best, place, rate = start, torch.zeros_like(reach), 1.0
    try:
        for _ in range(passes - 1):
            uphill = (gradient if subspace is None else subspace.restricted(gradient)).sign()
            there = torch.clamp(place + rate * reach * uphill, -reach, reach)
            loss.put(middle + (there if subspace is None else subspace.lifted(there)))
            found, new = loss.gradient()
            if best < found < math.inf:
                best, place, gradient = found, there, new
            else:
                rate /= 2
    finally:
        loss.put(middle)
    return start, best
