"""APOLLO: the gradient, scaled by what Adam does to a random projection of it."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from optim.core.batch import Batch, Params, Values
from optim.core.hyperparameters import Betas, Count, NonNegative
from optim.core.matrix import MatmulDtype, MatrixRule, bias_correction, random_matrix

_EPS = 1e-8


class APOLLO(MatrixRule):
    """Each channel of the gradient scaled as Adam would scale it, estimated in a random subspace.

    Source: Zhu et al., "APOLLO: SGD-like Memory, AdamW-level Performance", arXiv:2412.05270,
    Algorithm 1; order and eps of the authors' code (zhuhanqing/APOLLO).

        P: `rank` x min(m, n), random normal of variance 1 / rank, new every update_gap steps
        r = g P^T  (m >= n),  or  P g  (m < n)
        m <- beta1 * m + (1 - beta1) * r,   v <- beta2 * v + (1 - beta2) * r^2
        u = m / (sqrt(v) + eps)
        s = ||u|| / ||r||, over each row (m >= n) or column   (scaling "tensor": over all of it)
        d = s * g
        d <- d / max(1, (||d|| / ||d_before||) / growth_limit)
        p <- p - lr * sqrt(1 - beta2^t) / (1 - beta1^t) * sqrt(scale) * d
        p <- p * (1 - lr * weight_decay)

    APOLLO-Mini is rank 1 with scaling "tensor" and scale 128. Other parameters (embeddings, head,
    vectors): AdamW with betas, eps and weight_decay.
    `split_qkv` as in muon.
    Differs: P depends only on `seed`, the number of gaps so far and the shape, so it needs no state
    and is equal on all ranks; matrices of equal shape share it. After a zero gradient growth is not
    limited; the authors' code would freeze the matrix for thousands of steps. They can apply
    sqrt(scale) before or after the limit; as the limit is on a ratio, both give the same.
    Tuning: it saves state, and against GaLore the time of the SVD. lr is about 10 times AdamW's. s
    is about sqrt(rank / min(m, n)) of Adam's scale: a smaller rank needs a larger scale.
    State: with r = min(rank, m, n): exp_avg, exp_avg_sq of r max(m, n) numbers in at least float32,
    and one number; 8 bytes per parameter of the others (4.4 for GPT-2 124M at rank 256, 2.5 at 1).
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-2,
        betas: Betas = (0.9, 0.999),
        eps: NonNegative = 1e-6,
        weight_decay: NonNegative = 0.0,
        rank: Count = 128,
        update_gap: Count = 200,
        scale: NonNegative = 1.0,
        scaling: Literal["channel", "tensor"] = "channel",
        growth_limit: NonNegative = 1.01,
        seed: int = 0,
        split_qkv: bool = True,
        matmul_dtype: MatmulDtype = "tf32",
    ) -> None:
        if growth_limit < 1:
            raise ValueError(f"growth_limit = {growth_limit}: should be at least 1, as 1.01")
        super().__init__(params, locals())

    def matrix_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """Both moments of the projected gradient, and the norm of the step before."""
        m, n = p.shape
        r, dtype = min(h["rank"], m, n), torch.promote_types(p.dtype, torch.float32)
        low = torch.zeros((m, r) if m >= n else (r, n), dtype=dtype, device=p.device)
        norm = torch.zeros((), dtype=dtype, device=p.device)
        return {"exp_avg": low, "exp_avg_sq": low.clone(), "norm": norm}

    def matrix_step(self, batch: Batch, c: Values) -> None:
        h, (beta1, beta2) = batch.h, batch.h["betas"]
        correction = bias_correction(h["betas"], batch.step)
        step_size = c["lr"] * correction * math.sqrt(h["scale"])
        epoch = (batch.step - 1) // h["update_gap"]
        for p, g, state in batch.stacks():
            m, v, before = state["exp_avg"], state["exp_avg_sq"], state["norm"]
            g, tall = g.to(m.dtype), p.size(-2) >= p.size(-1)
            r = m.size(-1) if tall else m.size(-2)
            projection = random_matrix(r, min(p.shape[-2:]), h["seed"], epoch, m.dtype, m.device)
            projection = projection / math.sqrt(r)
            low = g @ projection.mT if tall else projection.expand(len(g), -1, -1) @ g
            m.lerp_(low, 1 - beta1)
            v.mul_(beta2).addcmul_(low, low, value=1 - beta2)
            u = m / (v.sqrt() + h["eps"])
            dim = (-2, -1) if h["scaling"] == "tensor" else (-1 if tall else -2)
            s = _norm(u, dim) / (_norm(low, dim) + _EPS)
            norm = _norm(s * _norm(g, dim), (-2, -1))[..., 0, 0]  # of s * g
            growth = norm / (before + _EPS) / h["growth_limit"]
            limit = torch.where(before > 0, growth.clamp(min=1), 1.0)
            before.copy_(norm / limit)
            factor = s * (step_size / limit)[..., None, None]
            if p.dtype == g.dtype:
                p.mul_(c["decay"]).addcmul_(g, factor, value=-c["decay"])
            else:
                p.sub_((g * factor).to(p.dtype)).mul_(c["decay"])


def _norm(x: Tensor, dim: int | tuple[int, int]) -> Tensor:
    """As torch.linalg.vector_norm, which takes ten times as long over columns on a CPU."""
    return x.square().sum(dim, keepdim=True).sqrt()
