"""LARS: momentum SGD with each tensor's gradient scaled to the norm of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core.base import UpdateRule
from optim.core.batch import Params, State, Tensors, Values
from optim.core.hyperparameters import Beta, NonNegative
from optim.core.norms import norms, once


class LARS(UpdateRule):
    """Momentum SGD with each matrix's gradient scaled to the norm of its weights.

    Source: You, Gitman & Ginsburg, "Large Batch Training of Convolutional Networks",
    arXiv:1708.03888, Algorithm 1.

        r = trust * norm(p) / (norm(g) + weight_decay * norm(p))   (1 if either norm is 0)
        b <- momentum * b + r * (g + weight_decay * p)             (b_0 = 0)
        p <- p - lr * b

    Differs: the paper puts lr inside the buffer; here it is outside, so that a schedule acts at
    once. Vectors (below two dimensions) take r = 1 and no decay, as is usual.
    Tuning: before momentum, a step moves a matrix by lr * trust times its norm and a vector by
    lr * g. Both have the same lr, so choose lr as for SGD, and `trust` for the matrices.
    weight_decay is coupled and bounded by the ratio.
    State: momentum_buffer: 4 bytes per parameter.
    """

    buffers = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1.0,
        momentum: Beta = 0.9,
        trust: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(params, locals())

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """Whether the norm of `p` sets its step."""
        return "adapted" if p.ndim >= 2 else "plain"

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        decay, b, d = h["weight_decay"], state["momentum_buffer"], grads
        if h["kind"] == "adapted":
            if decay:
                d = list(torch._foreach_add(grads, params, alpha=decay))
            d = list(torch._foreach_mul(d, _local_rates(params, grads, h)))
        torch._foreach_mul_(b, h["momentum"])
        torch._foreach_add_(b, d)
        torch._foreach_sub_(params, torch._foreach_mul(b, c["lr"]))


def _local_rates(params: Tensors, grads: Tensors, h: Values) -> Tensors:
    """r of each tensor, without dimensions."""
    rates = []
    for weight, grad in zip(norms(params), norms(grads), strict=True):
        rate = h["trust"] * weight / (grad + h["weight_decay"] * weight)
        rates.append(once(torch.where((weight > 0) & (grad > 0), rate, torch.ones_like(rate))))
    return rates
