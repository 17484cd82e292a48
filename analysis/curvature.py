"""The curvature of a loss: the largest eigenvalues of its Hessian, and its trace."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from analysis.loss import Loss
from configs import ConfigError

MOST_PRODUCTS = 2000  # after which a spectrum counts as one that does not converge


def largest_eigenvalues(
    loss: Loss,
    count: int,
    factors: Tensor | None = None,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> list[float]:
    """The `count` largest eigenvalues of the Hessian H, largest first.

    Args:
        loss: at its present weights.
        count: how many; fewer than there are weights.
        factors: of a preconditioner D, positive, one per weight: the eigenvalues are those of D H,
            which D^(1/2) H D^(1/2) shares.
        tolerance: relative error at which an eigenvalue has converged.
        seed: of the first vector.

    Raises:
        ConfigError: they do not converge, or there are not so many; one line.
    """
    size, root = sum(p.numel() for p in loss.params), None if factors is None else factors.sqrt()
    if count >= size:
        raise ConfigError(f"--eigenvalues {count}: the model has {size} weights; give fewer")

    def product(x: Any) -> Any:
        vector = torch.from_numpy(np.asarray(x, np.float32).reshape(-1)).to(loss.params[0].device)
        if root is None:
            return loss.product(vector).cpu().numpy()
        return (root * loss.product(root * vector)).cpu().numpy()

    start = np.random.default_rng(seed).standard_normal(size, np.float32)
    kept = min(size, max(2 * count + 1, 10))  # vectors of Lanczos, each as large as the weights
    try:
        found = eigsh(
            LinearOperator((size, size), product, dtype=np.float32),
            count,
            which="LA",
            v0=start,
            ncv=kept,
            maxiter=MOST_PRODUCTS // (kept - count),
            tol=tolerance,
            return_eigenvectors=False,
        )
    except ArpackNoConvergence:
        raise ConfigError(
            f"the {count} largest eigenvalues have not converged in {MOST_PRODUCTS} products; give"
            " fewer --eigenvalues, or more --tokens"
        ) from None
    return sorted((float(x) for x in found), reverse=True)


def trace(loss: Loss, draws: int, seed: int = 0) -> tuple[float, float]:
    """Hutchinson's estimate of the Hessian's trace, and its standard error.

    Source: Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian
    smoothing splines", 1989: the mean of v^T H v over vectors v of random signs.
    """
    generator, like = torch.Generator().manual_seed(seed), loss.weights
    found = []
    for _ in range(draws):
        signs = torch.randint(2, like.shape, generator=generator).mul_(2).sub_(1).to(like)
        found.append(float(signs @ loss.product(signs)))
    return float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(draws))
