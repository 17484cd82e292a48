"""Sums and norms of whole tensors and of rows, in a form that torch.compile makes fast.

torch._foreach_norm is opaque to it: what is to be summed would be written to memory first. A sum
of rows is fused instead with what made them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def norms(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Euclidean norm of each, without dimensions; summed in at least float32."""
    return [total(x * x).sqrt() for x in tensors]


def total(x: Tensor) -> Tensor:
    """Sum of all elements, without dimensions; row by row."""
    return row_sums(x).sum() if x.ndim else x


def row_sums(x: Tensor) -> Tensor:
    """Sums over the last dimension, in at least float32: bfloat16 cannot count to 300."""
    return x.sum(-1, dtype=torch.promote_types(x.dtype, torch.float32))


def once(x: Tensor) -> Tensor:
    """`x`, a number without dimensions, worked out once.

    Fused into a pass over a tensor, its roots and divisions would be done again for each element;
    but a maximum, of more than the few elements that are unrolled, is never fused into what uses
    it.
    """
    return x.expand(16).amax()
