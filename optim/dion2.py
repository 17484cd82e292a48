"""Dion2: Muon on the largest rows or columns of the momentum."""

from __future__ import annotations

import math

import torch

from optim.core.batch import Batch, Params, Values
from optim.core.hyperparameters import Beta, Betas, NonNegative, PositiveRatio
from optim.core.matrix import MatrixRule
from optim.core.orthogonal import Method, orthogonalised
from optim.core.width import SPECTRAL


class Dion2(MatrixRule):
    """A fraction of the momentum's rows, or columns, orthogonalised; the others wait their turn.

    Source: Ahn, Amsel & Langford, "Dion2: A Simple Method to Shrink Matrix in Muon",
    arXiv:2512.16928; microsoft/dion, dion2.py.

        M <- M + g
        I = the ceil(fraction * k) rows of M with the largest sum of absolute values
            (k rows; columns, if there are fewer columns than rows)
        O = orthogonalised(M[I])
        M[I] <- momentum * M[I]                (what was not taken stays in M whole)
        p <- p * (1 - lr * weight_decay)
        p[I] <- p[I] - lr * sqrt(m / n) * O

    Other parameters (embeddings, head, vectors): AdamW with betas, eps and weight_decay.
    Differs: `momentum` is "ef_decay" there. Rows are chosen from the whole matrix, on every rank
    alike, as with their "global" scope. Their products are in bfloat16, here so on a GPU.
    Tuning: lr as dion's, about 0.01 to 0.02. Rows that wait are not damped, so a small fraction
    makes the momentum longer: the authors advise a smaller `momentum` then (dion issue 120).
    State: momentum_buffer: 4 bytes per parameter of a hidden matrix; exp_avg, exp_avg_sq: 8 bytes
    of the others (5.27 for GPT-2 124M).
    """

    buffers = ("momentum_buffer",)
    not_of_matrices = ("betas", "eps")
    width_powers = SPECTRAL

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 0.01,
        momentum: Beta = 0.95,
        fraction: PositiveRatio = 0.25,
        orthogonalisation: Method = "polar_express",
        split_qkv: bool = True,
        weight_decay: NonNegative = 0.01,
        betas: Betas = (0.9, 0.95),
        eps: NonNegative = 1e-8,
    ) -> None:
        super().__init__(params, locals())

    def matrix_step(self, batch: Batch, c: Values) -> None:
        h, buffers = batch.h, batch.state["momentum_buffer"]
        torch._foreach_add_(buffers, batch.grads)
        chosen, parts = [], []
        for b in buffers:
            rows = b if b.size(0) <= b.size(1) else b.mT
            lengths = rows.abs().sum(-1, dtype=torch.promote_types(b.dtype, torch.float32))
            index = lengths.topk(math.ceil(h["fraction"] * len(rows)), sorted=False).indices
            index = index.sort().values
            parts.append(rows[index])
            chosen.append(index)
            rows.index_copy_(0, index, h["momentum"] * parts[-1])
        torch._foreach_mul_(batch.params, c["decay"])
        updates = orthogonalised(parts, h["orthogonalisation"])
        for p, index, update in zip(batch.params, chosen, updates, strict=True):
            m, n = p.shape
            rows = p if m <= n else p.mT
            rows.index_add_(0, index, update.to(p.dtype), alpha=-c["lr"] * math.sqrt(m / n))
