"""NAdamW: AdamW that looks one step of momentum ahead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core import adamw
from optim.core.base import UpdateRule
from optim.core.hyperparameters import Betas, NonNegative


class NAdamW(UpdateRule):
    """AdamW with Nesterov momentum, in the meaning of AlgoPerf and optax.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam", ICLR 2016 workshop, with a constant
    beta1, as in Choi et al., arXiv:1910.05446, table 1; AlgoPerf's baseline of this name.

        p <- p * (1 - lr * weight_decay)
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        n = beta1 * m + (1 - beta1) * g
        p <- p - lr * (n / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Differs: from torch's NAdam (`nadam` here), which raises beta1 from half its value over hundreds
    of steps and divides by the product of all of them: its early steps are much smaller.
    Tuning: lr, weight_decay and betas as AdamW. The first step is (1 + beta1) times AdamW's.
    State: exp_avg, exp_avg_sq: 8 bytes per parameter.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: NonNegative = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 1e-2,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def init_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Both moments."""
        return adamw.init_state(p)

    def coefficients(self, group: Mapping[str, Any], step: int) -> dict[str, float]:
        """As AdamW's."""
        return adamw.coefficients(group["lr"], group["betas"], group["weight_decay"], step)

    @staticmethod
    def update(
        params: list[Tensor],
        grads: list[Tensor],
        state: dict[str, list[Tensor]],
        group: Mapping[str, Any],
        coefficients: Mapping[str, Any],
    ) -> None:
        """As in the class docstring."""
        (beta1, _), m = group["betas"], state["exp_avg"]
        torch._foreach_mul_(params, coefficients["decay"])
        torch._foreach_lerp_(m, grads, 1 - beta1)
        denominator = adamw.root_mean_square(grads, state["exp_avg_sq"], group, coefficients)
        n = torch._foreach_lerp(m, grads, 1 - beta1)
        adamw.subtract_ratio(params, list(n), denominator, coefficients["step_size"])
