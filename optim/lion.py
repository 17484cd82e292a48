"""Lion: the sign of an interpolated momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core.base import UpdateRule
from optim.core.hyperparameters import Betas, NonNegative


class Lion(UpdateRule):
    """The sign of an interpolated momentum: every coordinate moves by lr.

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675,
    Algorithm 2.

        u = sign(beta1 * m + (1 - beta1) * g)                    (sign(0) = 0)
        p <- p * (1 - lr * weight_decay) - lr * u
        m <- beta2 * m + (1 - beta2) * g

    Differs: nothing. lion-pytorch's `decoupled_weight_decay` divides the decay by the first lr;
    not here, where decay is AdamW's.
    Tuning: the update has RMS 1, Adam's about 0.2 to 0.4: the paper advises lr 3 to 10 times below
    AdamW's and weight_decay 3 to 10 times above, so that their product stays.
    State: exp_avg: 4 bytes per parameter.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: NonNegative = 1e-4,
        betas: Betas = (0.9, 0.99),
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def init_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """The momentum."""
        return {"exp_avg": torch.zeros_like(p)}

    def coefficients(self, group: Mapping[str, Any], step: int) -> dict[str, float]:
        """lr, and what decay leaves of a weight."""
        return {"lr": group["lr"], "decay": 1 - group["lr"] * group["weight_decay"]}

    @staticmethod
    def update(
        params: list[Tensor],
        grads: list[Tensor],
        state: dict[str, list[Tensor]],
        group: Mapping[str, Any],
        coefficients: Mapping[str, Any],
    ) -> None:
        """As in the class docstring."""
        (beta1, beta2), m = group["betas"], state["exp_avg"]
        u = torch._foreach_lerp(m, grads, 1 - beta1)
        torch._foreach_sign_(u)
        torch._foreach_mul_(u, coefficients["lr"])
        torch._foreach_mul_(params, coefficients["decay"])
        torch._foreach_sub_(params, u)
        torch._foreach_lerp_(m, grads, 1 - beta2)
