"""Sums and norms of whole tensors and of rows, in a form that torch.compile makes fast.

torch.compile cannot see into torch._foreach_norm, so it would first write to memory what is to be
summed. A sum of rows is fused with what computes them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from optim.core.batch import Tensors


def norms_of_pairs(ones: Tensors, others: Tensors) -> list[tuple[Tensor, Tensor]]:
    """Euclidean norms of both tensors of each pair, as `whole` sums.

    torch.compile makes one loop of both sums only if they read the same tensor: the first also
    reads the second, times zero.
    """
    both = ones
    if torch.compiler.is_compiling():
        both = [x + 0.0 * y for x, y in zip(ones, others, strict=True)]
    return [
        (whole(x.square()).sqrt(), whole(y.square()).sqrt())
        for x, y in zip(both, others, strict=True)
    ]


def norms(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Euclidean norm of each, of shape (); summed in at least float32."""
    return [total(x * x).sqrt() for x in tensors]


def total(x: Tensor) -> Tensor:
    """Sum of all elements, of shape (); row by row."""
    return row_sums(x).sum() if x.ndim else x


def whole(x: Tensor) -> Tensor:
    """Sum of all elements, of shape (); torch.compile can store tensors of that size on the way."""
    return x.sum(dtype=torch.promote_types(x.dtype, torch.float32))


def row_sums(x: Tensor) -> Tensor:
    """Sums over the last dimension, in at least float32: bfloat16 cannot count to 300."""
    return x.sum(-1, dtype=torch.promote_types(x.dtype, torch.float32))


def once(x: Tensor) -> Tensor:
    """`x`, a tensor of shape (), computed once.

    torch.compile would fuse the roots and divisions of `x` into a pass over a tensor and repeat
    them for each element. It never fuses a maximum into what uses it, unless the maximum is over so
    few elements that it is unrolled.
    """
    return x.expand(16).amax()
