"""Aurora: Muon whose update gives every neuron of a long matrix the same length."""

from __future__ import annotations

import math

import torch

from optim.core.batch import Batch, Params, Tensors, Values
from optim.core.hyperparameters import Beta, Betas, Count, NonNegative, PositiveRatio
from optim.core.matrix import MatrixRule
from optim.core.orthogonal import SMALLEST_NORM, Method, orthogonalised
from optim.core.width import SPECTRAL
from optim.muon import averaged


class Aurora(MatrixRule):
    """Muon that balances the rows of a tall matrix, or the columns of a wide one.

    Source: Tilde Research, "Aurora", 2026 (blog.tilderesearch.com/blog/aurora); the code is
    tilde-research/aurora-release.

        b <- momentum * b + (1 - momentum) * g
        u = momentum * b + (1 - momentum) * g  if nesterov  else b
        square:  O = orthogonalised(u)         (as in muon)
        tall, m x n with m > n (a wide u is transposed before, and O after):
            D_i = 1 / ||u_i||                  (row i)
            O = orthogonalised(D u)
            balance_steps - 1 times:
                D_i <- D_i * ((n / m) / ||O_i||^2)^balance_power
                O = orthogonalised(D u)
        p <- p * (1 - lr * weight_decay)
        p <- p - lr * sqrt(max(1, m / n)) * O

    Other parameters (embeddings, head, vectors): AdamW with betas, eps and weight_decay.
    Differs: rows below 1e-7 of the norm of u are taken for that long; in the code the floor is 1e-7
    itself, so that it depends on the scale of the gradient. The code's products are in bfloat16,
    here so on a GPU. Its variant on the manifold ("riemannian_aurora") is not here.
    Tuning: lr and weight_decay as muon's with scale "original": on square matrices it is Muon. Each
    balance step costs another orthogonalisation of every matrix that is not square.
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
        lr: NonNegative = 0.05,
        momentum: Beta = 0.95,
        nesterov: bool = True,
        balance_steps: Count = 2,
        balance_power: PositiveRatio = 0.5,
        orthogonalisation: Method = "polar",
        split_qkv: bool = True,
        weight_decay: NonNegative = 0.025,
        betas: Betas = (0.9, 0.95),
        eps: NonNegative = 1e-8,
    ) -> None:
        super().__init__(params, locals())

    def matrix_step(self, batch: Batch, c: Values) -> None:
        u = averaged(batch.state["momentum_buffer"], batch.grads, batch.h)
        squares = [i for i, x in enumerate(u) if x.size(0) == x.size(1)]
        others = [i for i, x in enumerate(u) if x.size(0) != x.size(1)]
        updates = list(u)
        for i, o in zip(
            (*squares, *others),
            (
                *orthogonalised([u[i] for i in squares], batch.h["orthogonalisation"]),
                *_balanced([u[i] for i in others], batch.h),
            ),
            strict=True,
        ):
            m, n = o.shape
            updates[i] = o.to(u[i].dtype) * math.sqrt(max(1, m / n))
        torch._foreach_mul_(batch.params, c["decay"])
        torch._foreach_add_(batch.params, updates, alpha=-c["lr"])


def _balanced(tensors: Tensors, h: Values) -> Tensors:
    """Orthogonal matrices whose slices along the longer side have nearly the same length."""
    tall = [x if x.size(0) > x.size(1) else x.mT for x in tensors]
    tall = [x.to(torch.promote_types(x.dtype, torch.float32)) for x in tall]
    tall = [x / x.norm().clamp(min=SMALLEST_NORM) for x in tall]
    scales = [1 / x.norm(dim=1, keepdim=True).clamp(min=SMALLEST_NORM) for x in tall]
    results: Tensors = []
    for step in range(h["balance_steps"]):
        if step:
            lengths = [o.square().sum(1, True).clamp(min=SMALLEST_NORM**2) for o in results]
            scales = [
                s * (o.size(1) / o.size(0) / length) ** h["balance_power"]
                for s, o, length in zip(scales, results, lengths, strict=True)
            ]
        scaled = [s * x for s, x in zip(scales, tall, strict=True)]
        results = orthogonalised(scaled, h["orthogonalisation"])
    pairs = zip(results, tensors, strict=True)
    return [o if o.shape == x.shape else o.mT for o, x in pairs]
