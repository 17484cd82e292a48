"""Bases in which second moments of matrices are nearly diagonal, as SOAP and its kin turn them.

Every tensor may have dimensions before its last two: matrices of equal shape, stacked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optim.core.matrix import eigen


def first_basis(moment: Tensor) -> Tensor:
    """Eigenvectors of a symmetric matrix as columns, the largest eigenvalue first.

    Raises:
        RuntimeError: the matrix is not finite.
    """
    return eigen(moment)[1].flip(-1)


def rotated(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """left^T x right: x as the bases see it."""
    return left.mT @ x @ right


def rotated_back(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """left x right^T: the inverse of `rotated`."""
    return left @ x @ right.mT


def turn(moment: Tensor, basis: Tensor) -> Tensor:
    """One step of orthogonal iteration: moves `basis` towards the eigenvectors of `moment`.

    Its columns are sorted by their share of the moment, diag(basis^T moment basis), largest first.
    Returns the order (..., n): numbers that belong to the columns have to follow them.
    """
    product = moment @ basis
    order = (basis * product).sum(-2).argsort(dim=-1, descending=True)
    basis.copy_(torch.linalg.qr(product.take_along_dim(order.unsqueeze(-2), -1)).Q)
    return order
