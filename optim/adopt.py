"""ADOPT: Adam normalised by the second moment of the previous steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core.base import UpdateRule
from optim.core.batch import Params, State, Tensors, Values
from optim.core.hyperparameters import Betas, NonNegative
from optim.core.width import ELEMENTWISE


class ADOPT(UpdateRule):
    """Adam whose gradient is divided by the second moment of the previous steps, then averaged.

    Source: Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal
    Rate", arXiv:2411.02853, with its clipping; the authors' code with `decouple=True`.

        t = 1:   v <- g^2, and nothing moves
        t > 1:   p <- p * (1 - lr * weight_decay)
                 n = clip(g / max(sqrt(v), eps), -c, c),   c = (t - 1)^(1/4)
                 m <- beta1 * m + (1 - beta1) * n
                 p <- p - lr * m
                 v <- beta2 * v + (1 - beta2) * g^2

    Differs: the authors' code couples the decay by default. Their releases before November 2024
    have no clipping. t counts the parameter's own gradients.
    Tuning: lr and weight_decay as AdamW; eps is a floor, 1e-6, and beta2 can be 0.9999. The first
    gradient only fills v, so a run takes one step fewer than AdamW's.
    State: exp_avg, exp_avg_sq: 8 bytes per parameter.
    """

    width_powers = ELEMENTWISE

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        betas: Betas = (0.9, 0.9999),
        eps: NonNegative = 1e-6,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(params, locals())

    def init_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """m = 0, and v = g^2, which the average of the first step leaves as it is."""
        assert p.grad is not None
        return {"exp_avg": torch.zeros_like(p), "exp_avg_sq": p.grad.square()}

    def coefficients(self, h: Values, step: int) -> Values:
        """Clipping n at c is c times clipping n / c at 1. At t = 1 nothing is added to m."""
        c = super().coefficients(h, step)
        if step == 1:
            return {**c, "decay": 1.0, "inverse_clip": 1.0, "weight": 0.0}
        clip = (step - 1) ** 0.25
        return {**c, "inverse_clip": 1 / clip, "weight": clip * (1 - h["betas"][0])}

    def held_back(self, p: Tensor, state: Mapping[str, Any], h: Values) -> Tensor | None:
        """Where n is clipped; nowhere at t = 1, which moves nothing."""
        assert p.grad is not None
        n = p.grad / state["exp_avg_sq"].sqrt().clamp(min=h["eps"])
        limit = (state["step"] - 1) ** 0.25
        return n.abs() > limit if limit else torch.zeros_like(n, dtype=torch.bool)

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        (beta1, beta2), m, v = h["betas"], state["exp_avg"], state["exp_avg_sq"]
        torch._foreach_mul_(params, c["decay"])
        floored = torch._foreach_clamp_min(torch._foreach_sqrt(v), h["eps"])
        n = torch._foreach_div(grads, floored)
        torch._foreach_mul_(n, c["inverse_clip"])
        torch._foreach_clamp_max_(n, 1.0)
        torch._foreach_clamp_min_(n, -1.0)
        torch._foreach_mul_(n, c["weight"])
        torch._foreach_mul_(m, beta1)
        torch._foreach_add_(m, n)
        torch._foreach_sub_(params, torch._foreach_mul(m, c["lr"]))
        torch._foreach_lerp_(v, torch._foreach_mul(grads, grads), 1 - beta2)
