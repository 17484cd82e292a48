"""AdaMuon: Muon divided, element by element, by a running root mean square."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optim.core.batch import Batch, Params, Values
from optim.core.hyperparameters import Beta, Betas, NonNegative
from optim.core.matrix import MatrixRule
from optim.core.orthogonal import Method, orthogonalised
from optim.muon import averaged

_EPS = 1e-8


class AdaMuon(MatrixRule):
    """The signs of the momentum, orthogonalised, and divided by their root mean square.

    Source: Si, Zhang & Shen, "AdaMuon: Adaptive Muon Optimizer", arXiv:2507.11005, Algorithm 1.

        b <- momentum * b + (1 - momentum) * g
        u = momentum * b + (1 - momentum) * g  if nesterov  else b
        O = orthogonalised(sign(u))  if sign  else  orthogonalised(u)
        v <- momentum * v + (1 - momentum) * O^2
        U = O / (sqrt(v) + 1e-8)
        p <- p * (1 - lr * weight_decay)
        p <- p - lr * 0.2 * sqrt(m n) * U / (||U||_F + 1e-8)

    Other parameters (embeddings, head, vectors): AdamW with betas, eps and weight_decay.
    Differs: the published code keeps v in bfloat16, here it has at least float32. Without `sign`
    it is the paper's first version; pytorch_optimizer has that one.
    Tuning: the update has an RMS of 0.2, so lr and weight_decay are AdamW's. A sign jumps where the
    momentum passes 0: two machines that round differently drift apart sooner than with Muon.
    State: momentum_buffer, second_moment: 8 bytes per parameter of a hidden matrix; exp_avg,
    exp_avg_sq: 8 bytes of the others.
    """

    buffers = ("momentum_buffer",)
    not_of_matrices = ("betas", "eps")

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 6e-4,
        momentum: Beta = 0.95,
        nesterov: bool = True,
        sign: bool = True,
        orthogonalisation: Method = "newton_schulz",
        split_qkv: bool = True,
        weight_decay: NonNegative = 0.1,
        betas: Betas = (0.9, 0.95),
        eps: NonNegative = 1e-8,
    ) -> None:
        super().__init__(params, locals())

    def matrix_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """The momentum, and the mean square of each element of the orthogonal update."""
        v = torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
        return {**super().matrix_state(p, h), "second_moment": v}

    def matrix_step(self, batch: Batch, c: Values) -> None:
        h, v = batch.h, batch.state["second_moment"]
        u = averaged(batch.state["momentum_buffer"], batch.grads, batch.h)
        u = [x.sign() for x in u] if h["sign"] else u
        o = [x.to(v[0].dtype) for x in orthogonalised(u, h["orthogonalisation"])]
        torch._foreach_mul_(v, h["momentum"])
        torch._foreach_addcmul_(v, o, o, 1 - h["momentum"])
        roots = torch._foreach_sqrt(v)
        torch._foreach_add_(roots, _EPS)
        torch._foreach_div_(o, roots)
        for x, norm in zip(o, torch._foreach_norm(o), strict=True):
            x.mul_(0.2 * math.sqrt(x.numel()) / (norm + _EPS))
        torch._foreach_mul_(batch.params, c["decay"])
        torch._foreach_add_(batch.params, [x.to(batch.params[0].dtype) for x in o], alpha=-c["lr"])
