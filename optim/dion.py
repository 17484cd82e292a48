"""Dion: an orthonormal step of low rank from a power iteration on the momentum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optim.core.batch import Batch, Params, Values
from optim.core.hyperparameters import Beta, Betas, NonNegative, PositiveRatio
from optim.core.matrix import MatmulDtype, MatrixRule, add_product_, random_matrix


class Dion(MatrixRule):
    """The leading singular directions of the momentum, with equal weight; the rest is kept.

    Source: Ahn et al., "Dion: Distributed Orthonormalized Updates", arXiv:2504.05295, Algorithm 1.

        B = M + g                              (transposed if m < n, and so are M and P Q^T)
        P = qr(B Q)                            (m x r: orthonormal columns; 0 if B is 0)
        W = B^T P
        M <- B - (1 - momentum) * P W^T        (error feedback: what P misses stays in M whole)
        Q <- W with columns of length 1        (n x r)
        p <- p * (1 - lr * weight_decay)
        p <- p - lr * sqrt(m / n) * P Q^T

    with r = ceil(rank_fraction * min(m, n)). Other parameters (embeddings, head, vectors): AdamW
    with betas, eps and weight_decay.
    `split_qkv` as in muon.
    Differs: it runs on one machine; the paper's sharding changes where the work is done, not the
    result. Wide matrices are transposed as in the authors' dion.py, which saves state; without
    `transpose` no matrix is, as in Algorithm 1 and their dion_simple.py. qr is Householder's, in at
    least float32; the authors' code has a randomised Cholesky QR. If a column of W is zero, that
    column of Q stays as it is. The first Q is random and depends only on `seed` and the shape, so
    it is equal on all ranks; matrices of equal shape share it.
    Tuning: lr as muon's with scale "original", about 0.01 to 0.02. With rank_fraction 1 it is close
    to Muon; published runs take 1/2 to 1/4 without much loss at this size.
    State: momentum_buffer and Q: 4 (1 + r / max(m, n)) bytes per parameter of an m x n matrix, or
    4 (1 + r / m) without `transpose`; exp_avg, exp_avg_sq: 8 bytes of the others (6.0 for GPT-2
    124M with rank_fraction 0.5).
    """

    buffers = ("momentum_buffer",)
    not_of_matrices = ("betas", "eps")

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 0.01,
        momentum: Beta = 0.95,
        rank_fraction: PositiveRatio = 0.5,
        weight_decay: NonNegative = 0.01,
        seed: int = 0,
        transpose: bool = True,
        split_qkv: bool = True,
        matmul_dtype: MatmulDtype = "tf32",
        betas: Betas = (0.9, 0.95),
        eps: NonNegative = 1e-8,
    ) -> None:
        super().__init__(params, locals())

    def matrix_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """The momentum, and the right factor Q."""
        r = math.ceil(h["rank_fraction"] * min(p.shape))
        dtype = torch.promote_types(p.dtype, torch.float32)
        side = min(p.shape) if h["transpose"] else p.size(1)
        right = random_matrix(side, r, h["seed"], 0, dtype, p.device)
        return {**super().matrix_state(p, h), "right_factor": right.clone()}

    def matrix_step(self, batch: Batch, c: Values) -> None:
        h = batch.h
        for p, g, state in batch.stacks():
            m, n = p.shape[-2:]
            step_size = c["lr"] * math.sqrt(m / n)
            momentum, right = state["momentum_buffer"], state["right_factor"]
            if h["transpose"] and m < n:
                p, g, momentum = p.mT, g.mT, momentum.mT
            b = momentum.to(right.dtype) + g.to(right.dtype)
            some = b.any(-1, keepdim=True).any(-2, keepdim=True)  # of zeros, qr makes unit vectors
            left = torch.linalg.qr(b @ right).Q * some
            w = b.mT @ left
            momentum.copy_(b.baddbmm_(left, w.mT, alpha=h["momentum"] - 1))
            lengths = w.norm(dim=-2, keepdim=True)
            right.copy_(torch.where(lengths > 0, w / lengths, right))
            add_product_(p, left, right.mT, left=c["decay"], factor=-step_size)
