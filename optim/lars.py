"""LARS: momentum SGD with each tensor's gradient scaled to the norm of its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core.base import UpdateRule
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
    Tuning: before momentum, a step moves a matrix by lr * trust times its norm. Vectors move by
    lr * g, so lr cannot be large for one without being large for the other: choose lr as for SGD
    and `trust` for the matrices. weight_decay is coupled and bounded by the ratio.
    State: momentum_buffer: 4 bytes per parameter.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: NonNegative = 1.0,
        momentum: Beta = 0.9,
        trust: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """Whether the norm of `p` sets its step."""
        return "adapted" if p.ndim >= 2 else "plain"

    def init_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """The momentum."""
        return {"momentum_buffer": torch.zeros_like(p)}

    @staticmethod
    def update(
        params: list[Tensor],
        grads: list[Tensor],
        state: dict[str, list[Tensor]],
        group: Mapping[str, Any],
        coefficients: Mapping[str, Any],
    ) -> None:
        """As in the class docstring."""
        decay, b, d = group["weight_decay"], state["momentum_buffer"], grads
        if group["kind"] == "adapted":
            if decay:
                d = list(torch._foreach_add(grads, params, alpha=decay))
            d = list(torch._foreach_mul(d, local_rates(params, grads, group)))
        torch._foreach_mul_(b, group["momentum"])
        torch._foreach_add_(b, d)
        torch._foreach_sub_(params, torch._foreach_mul(b, coefficients["lr"]))


def local_rates(
    params: list[Tensor], grads: list[Tensor], group: Mapping[str, Any]
) -> list[Tensor]:
    """r of each tensor, without dimensions."""
    rates = []
    for weight, grad in zip(norms(params), norms(grads), strict=True):
        rate = group["trust"] * weight / (grad + group["weight_decay"] * weight)
        rates.append(once(torch.where((weight > 0) & (grad > 0), rate, torch.ones_like(rate))))
    return rates
