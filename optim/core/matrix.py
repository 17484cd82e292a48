"""What the methods for matrices share: which parameters are theirs, and AdamW for the others.

A method's own mathematics is for the matrices inside the network, whose rows and columns are
neurons: parameters with two dimensions in a group of role "hidden", or in a group without a role.
Embeddings, an untied head and vectors take AdamW's step with lr * adamw_lr_ratio. A ratio, because
a schedule acts on lr and so reaches both.

Random matrices depend on a seed, an epoch and a shape, never on torch's global generator. So they
are equal on all ranks, after a resume and for any order of the parameters, and need no state.
Matrices of equal shape share them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from optim.core import adamw
from optim.core.base import UpdateRule
from optim.core.batch import Batch, Params, Tensors, Values


class MatrixRule(UpdateRule):
    """An optimizer of hidden matrices, with AdamW inside for all other parameters.

    A subclass writes `__init__`, `matrix_step` and, as `buffers` or `matrix_state`, its state. Its
    hyperparameters include "weight_decay", "adamw_lr_ratio", and for AdamW either "betas" and
    "eps" or "adamw_betas" and "adamw_eps".

    Raises:
        ValueError: none of the parameters is a hidden matrix.
    """

    def __init__(self, params: Params, values: Values) -> None:
        super().__init__(params, values)
        if all(h["kind"] == "adamw" for _, _, _, h in self._entries()):
            raise ValueError(
                f"{type(self).__name__} has no matrix to act on: none of the parameters has two"
                " dimensions and the role 'hidden' (or no role); use adamw for these"
            )

    def matrix_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """Tensors to keep for the matrix `p`; by default zeros, named by `buffers`."""
        return super().init_state(p, h)

    def matrix_step(self, batch: Batch, c: Values) -> None:
        """One step of a batch of matrices, in place, never compiled; `c` has "lr" and "decay"."""
        raise NotImplementedError

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """Either "adamw", "matrix", or with split_qkv also "qkv": three matrices in one."""
        return split_kind(p, name, group) if is_hidden(p, group) else "adamw"

    def flat(self, kind: str) -> bool:
        """AdamW does not depend on shapes."""
        return kind == "adamw"

    def compiles(self, kind: str) -> bool:
        """Only AdamW: decompositions leave nothing to compile, and their first step is slowest."""
        return kind == "adamw"

    def init_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """AdamW's moments, or the method's own state."""
        if h["kind"] == "adamw":
            return {name: torch.zeros_like(p) for name in adamw.BUFFERS}
        return self.matrix_state(p, h)

    update = staticmethod(adamw.update)

    def advance(self, batches: list[Batch]) -> None:
        """AdamW's step, or the method's own."""
        for batch in batches:
            h = batch.h
            if h["kind"] != "adamw":
                self.matrix_step(batch, self.coefficients(h, batch.step))
                continue
            names = ("betas", "eps", "weight_decay", "kind")
            inner = {name: h.get(f"adamw_{name}", h.get(name)) for name in names}
            inner["lr"] = h["lr"] * h["adamw_lr_ratio"]
            self.run(self.update, replace(batch, h=inner), adamw.coefficients(inner, batch.step))


def is_hidden(p: Tensor, group: Mapping[str, Any]) -> bool:
    """Whether `p` is a matrix between neurons: its group has the role "hidden", or no role."""
    return p.ndim == 2 and group.get("role", "hidden") == "hidden"


def split_kind(p: Tensor, name: str, group: Mapping[str, Any]) -> str:
    """The kind of a hidden matrix: "qkv" if it is to be split in three, otherwise "matrix".

    Raises:
        ValueError: it is to be split, but its rows are not a multiple of three.
    """
    module = name.removesuffix(".weight").rpartition(".")[2]
    if not group.get("split_qkv") or module != "c_attn":
        return "matrix"
    if len(p) % 3:
        raise ValueError(
            f"'{name}' has {len(p)} rows, which are not Q, K and V; use split_qkv = false"
        )
    return "qkv"


def matrices(tensors: Tensors, kind: str) -> Tensors:
    """Views of `tensors` as single matrices: one of kind "qkv" is three."""
    return [part for t in tensors for part in (t.chunk(3) if kind == "qkv" else (t,))]


def bias_correction(betas: tuple[float, float], step: int) -> float:
    """sqrt(1 - beta2^t) / (1 - beta1^t), the factor of m / (sqrt(v) + eps)."""
    return math.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)


def eigen(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors; in float64 if float32 does not converge.

    Raises:
        RuntimeError: the matrix is not finite.
    """
    try:
        values, vectors = torch.linalg.eigh(symmetric)
    except torch.linalg.LinAlgError:
        if not symmetric.isfinite().all():
            raise RuntimeError(
                "a second moment has no eigenvectors: a gradient of this step or an earlier one is"
                " not finite"
            ) from None
        values, vectors = (t.to(symmetric.dtype) for t in torch.linalg.eigh(symmetric.double()))
    return values, vectors


def add_product_(p: Tensor, a: Tensor, b: Tensor, *, left: float, factor: float) -> None:
    """p <- left * p + factor * a b, in one pass over `p` if all have one dtype."""
    if p.dtype == a.dtype:
        p.addmm_(a, b, beta=left, alpha=factor)
    else:
        p.mul_(left).add_((a @ b).to(p.dtype), alpha=factor)


@lru_cache(maxsize=64)
def random_matrix(
    rows: int, columns: int, seed: int, epoch: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Standard normal numbers, the same for the same arguments; not to be written to."""
    mixed = seed
    for part in (epoch, rows, columns):
        mixed = (mixed * 6364136223846793005 + part + 1442695040888963407) % 2**63
    generator = torch.Generator().manual_seed(mixed)
    return torch.randn(rows, columns, generator=generator, dtype=dtype).to(device)
