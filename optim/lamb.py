"""LAMB: Adam's update scaled, tensor by tensor, to the norm of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core import adamw
from optim.core.base import UpdateRule
from optim.core.batch import Params, State, Tensors, Values
from optim.core.hyperparameters import Betas, NonNegative
from optim.core.norms import norms_of_pairs, once
from optim.core.one_pass import TwoPasses


class LAMB(UpdateRule):
    """Adam's update scaled, tensor by tensor, to the norm of the weights.

    Source: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
    arXiv:1904.00962, Algorithm 2.

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p
        r = norm(p) / norm(u)                                    (1 if either norm is 0)
        p <- p - lr * r * u

    Differs: vectors (below two dimensions) take r = 1 and no decay, as in NVIDIA's BERT; with
    `adapt_vectors` all are treated alike, as in the paper. Published codes differ among themselves
    by up to 12 % after 12 steps: `bias_correction = false` (the paper's first versions),
    `max_weight_norm` caps norm(p) (0: no cap; 10 in several), and `ratio_eps` is added to norm(u).
    The preset lamb_seed sets them as in the code from which this project began.
    Tuning: a step moves a matrix by lr times its norm, whatever the gradient: with weights of RMS
    0.02, lr 1e-2 is AdamW's 2e-4 with an update of RMS 1. The cap of 10 was made for BERT: for
    GPT-2, whose embedding has norm 124, it makes lr 12 times smaller there and not elsewhere.
    State: exp_avg, exp_avg_sq: 8 bytes per parameter. Compiled on a CPU, it keeps one buffer as
    large as the largest tensor, which no checkpoint holds.
    """

    buffers = adamw.BUFFERS

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-2,
        betas: Betas = (0.9, 0.999),
        eps: NonNegative = 1e-6,
        weight_decay: NonNegative = 1e-2,
        bias_correction: bool = True,
        max_weight_norm: NonNegative = 0.0,
        ratio_eps: NonNegative = 0.0,
        adapt_vectors: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """Whether the norm of `p` sets its step."""
        return "adapted" if p.ndim >= 2 or group["adapt_vectors"] else "plain"

    def coefficients(self, h: Values, step: int) -> Values:
        """lr and Adam's corrections."""
        (beta1, beta2), corrected = h["betas"], h["bias_correction"]
        return {
            **super().coefficients(h, step),
            "scale": 1 / (1 - beta1**step) if corrected else 1.0,
            "root_scale": 1 / math.sqrt(1 - beta2**step) if corrected else 1.0,
        }

    @staticmethod
    def measure(
        params: Tensors, grads: Tensors, state: State, h: Values, c: Values
    ) -> tuple[Tensors, Tensors]:
        """Update m and v; returns u and r."""
        m = state["exp_avg"]
        torch._foreach_mul_(m, h["betas"][0])
        torch._foreach_add_(m, grads, alpha=1 - h["betas"][0])
        denominator = adamw.update_denominator(grads, state["exp_avg_sq"], h, c)
        u = list(torch._foreach_div(m, denominator))
        torch._foreach_mul_(u, c["scale"])
        if h["kind"] == "plain":
            return u, [p.new_ones(()) for p in params]
        if h["weight_decay"]:
            torch._foreach_add_(u, params, alpha=h["weight_decay"])
        return u, _trust_ratios(params, u, h)

    @staticmethod
    def move(params: Tensors, updates: Tensors, ratios: Tensors, h: Values, c: Values) -> None:
        """Subtract lr * r * u."""
        u = torch._foreach_mul(updates, ratios)
        torch._foreach_mul_(u, c["lr"])
        torch._foreach_sub_(params, u)

    update = staticmethod(TwoPasses(measure, move))


def _trust_ratios(params: Tensors, updates: Tensors, h: Values) -> Tensors:
    """norm(p) / norm(u) of each tensor, 1 where either is 0; without dimensions."""
    ratios = []
    for weight, update in norms_of_pairs(params, updates):
        both = (weight > 0) & (update > 0)
        if h["max_weight_norm"]:
            weight = weight.clamp(max=h["max_weight_norm"])
        ratio = weight / (update + h["ratio_eps"])
        ratios.append(once(torch.where(both, ratio, torch.ones_like(ratio))))
    return ratios
