"""Muon: momentum, orthogonalised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from optim.core.batch import Batch, Params, Tensors, Values
from optim.core.hyperparameters import Beta, Betas, Count, NonNegative
from optim.core.matrix import MatrixRule
from optim.core.orthogonal import Method, ProductDtype, iterations, orthogonalised
from optim.core.width import ORTHOGONAL_RMS, SPECTRAL, Powers


class Muon(MatrixRule):
    """Momentum with its singular values set to about 1, for hidden matrices; AdamW for the rest.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
    (kellerjordan.github.io/posts/muon); weight decay and "match_rms_adamw": Liu et al., "Muon is
    Scalable for LLM Training", arXiv:2502.16982, section 2.2; normalise_rows: Chang et al.,
    "MuonEq", arXiv:2603.28254; renormalise: Zhang et al., "Muon+", arXiv:2602.21545.

        b <- momentum * b + (1 - momentum) * g
        u = momentum * b + (1 - momentum) * g  if nesterov  else b
        u_i <- u_i * ||u||_F / (sqrt(m) ||u_i||)  for each row i,  if normalise_rows
        O = orthogonalised(u)                     (optim/core/orthogonal.py: ns_steps polynomials)
        O <- O * sqrt(min(m, n)) / ||O||_F        if renormalise
        p <- p * (1 - lr * weight_decay)
        p <- p - lr * s * O
        scale "original":         s = sqrt(max(1, m / n))        (m x n: outputs x inputs)
        scale "match_rms_adamw":  s = 0.2 * sqrt(max(m, n))

    Other parameters (embeddings, head, vectors): AdamW with betas, eps and weight_decay.
    Differs: b is an average where the post has a sum; the direction is the same. `split_qkv`
    orthogonalises Q, K and V of a fused matrix "c_attn" separately, as in a model with three
    matrices; published GPT-2 code does one or the other. The products are in bfloat16 on a GPU, as
    in the post, and in float32 on a CPU, or in `matmul_dtype` everywhere. The gradient is left
    alone; the post's code overwrites it. Of MuonEq and Muon+ the forms that nanochat trains with.
    Tuning: with "match_rms_adamw" the update has AdamW's RMS (about 0.2) and takes AdamW's lr and
    weight_decay, for all roles. With "original" lr is about 0.02, and a lr_ratio of about 0.015 for
    the other roles gives AdamW 3e-4; the same weight_decay then decays them far less. The scale
    of the gradient has no influence: clipping only changes the weight of a batch in the momentum.
    State: momentum_buffer: 4 bytes per parameter of a hidden matrix; exp_avg, exp_avg_sq: 8 bytes
    of the others (5.27 for GPT-2 124M).
    """

    buffers = ("momentum_buffer",)
    not_of_matrices = ("betas", "eps")

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        momentum: Beta = 0.95,
        nesterov: bool = True,
        orthogonalisation: Method = "newton_schulz",
        ns_steps: Count | None = None,
        gram: bool = False,
        matmul_dtype: ProductDtype = "auto",
        normalise_rows: bool = False,
        renormalise: bool = False,
        scale: Literal["original", "match_rms_adamw"] = "match_rms_adamw",
        split_qkv: bool = True,
        weight_decay: NonNegative = 0.1,
        betas: Betas = (0.9, 0.95),
        eps: NonNegative = 1e-8,
    ) -> None:
        super().__init__(params, locals())

    @classmethod
    def width_rule(cls, h: Values) -> Powers | None:
        """By the norm that `scale` keeps; None with `renormalise`, as NorMuon's."""
        if h["renormalise"]:
            return None
        return SPECTRAL if h["scale"] == "original" else ORTHOGONAL_RMS

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """As every method's for matrices; refuses more steps than the polynomials there are."""
        iterations(group["orthogonalisation"], group["ns_steps"])
        return super().kind(p, name, group)

    def matrix_step(self, batch: Batch, c: Values) -> None:
        updates = momentum_orthogonalised(batch)
        torch._foreach_mul_(updates, [scale_factor(u.shape, batch.h["scale"]) for u in updates])
        torch._foreach_mul_(batch.params, c["decay"])
        torch._foreach_add_(batch.params, updates, alpha=-c["lr"])


def averaged(buffers: Tensors, grads: Tensors, h: Values) -> Tensors:
    """Update the average; returns it, or Nesterov's look-ahead, not to be written to."""
    torch._foreach_lerp_(buffers, grads, 1 - h["momentum"])
    return list(torch._foreach_lerp(grads, buffers, h["momentum"])) if h["nesterov"] else buffers


def momentum_orthogonalised(batch: Batch) -> Tensors:
    """Update the momentum; returns O of each matrix, as new tensors."""
    h = batch.h
    return orthogonalised(
        averaged(batch.state["momentum_buffer"], batch.grads, h),
        h["orthogonalisation"],
        h["ns_steps"],
        gram=h["gram"],
        dtype=h["matmul_dtype"],
        normalise_rows=h["normalise_rows"],
        renormalise=h["renormalise"],
    )


def scale_factor(shape: torch.Size, convention: str) -> float:
    """The factor of an orthogonal update of an m x n matrix, in either convention."""
    m, n = shape
    return math.sqrt(max(1, m / n)) if convention == "original" else 0.2 * math.sqrt(max(m, n))
