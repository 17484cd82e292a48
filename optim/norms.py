"""Norms of whole tensors, in a form that torch.compile fuses with what comes before and after.

torch._foreach_norm is opaque to it: the tensor would be written to memory, to be read again, and
a fresh buffer of the size of the embedding costs more than the whole update.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def norms(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Euclidean norm of each, without dimensions; summed in at least float32."""
    return [sum_in_float32(x * x).sqrt() for x in tensors]


def sum_in_float32(x: Tensor) -> Tensor:
    """Sum of all elements in at least float32: bfloat16 cannot count to 300."""
    return x.sum(dtype=torch.promote_types(x.dtype, torch.float32))
