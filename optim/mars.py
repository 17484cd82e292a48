"""MARS: AdamW on gradients corrected by the change since the last step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core import adamw
from optim.core.base import UpdateRule
from optim.core.hyperparameters import Betas, NonNegative
from optim.core.norms import norms, once


class MARS(UpdateRule):
    """AdamW on gradients corrected by their change since the last step (MARS-AdamW, approximate).

    Source: Yuan et al., "MARS: Unleashing the Power of Variance Reduction for Training Large
    Models", arXiv:2411.10438, with the last gradient at the last weights ("MARS-approx").

        c = g + gamma * beta1 / (1 - beta1) * (g - g_last)       (g_last_0 = 0)
        c <- c / max(norm(c), 1)                                 (norm over the tensor)
        m <- beta1 * m + (1 - beta1) * c
        v <- beta2 * v + (1 - beta2) * c^2
        p <- p - lr * ((m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p)

    Parameters that are not matrices: AdamW with lr * vector_lr_ratio and vector_betas.
    Differs: vector_lr_ratio, the authors' lr_1d / lr, is a factor, so that a sweep of lr keeps it.
    The authors' code keeps the last gradient by reference, so that zeroing gradients in place
    undoes the correction; here it is a copy. The exact variant, which takes the gradient of the
    new batch at the old weights too, is not here: it doubles the cost of a step.
    Tuning: the authors train GPT-2 124M at ten times AdamW's lr, 6e-3, with gamma 0.025 and decay
    0.01. g_last is what clipping left of the gradient. The embedding counts as a matrix.
    State: exp_avg, exp_avg_sq, last_grad: 12 bytes per parameter of a matrix, 8 of another.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: NonNegative = 3e-3,
        betas: Betas = (0.95, 0.99),
        gamma: NonNegative = 0.025,
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.0,
        vector_lr_ratio: NonNegative = 1.0,
        vector_betas: Betas = (0.9, 0.95),
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "gamma": gamma,
            "eps": eps,
            "weight_decay": weight_decay,
            "vector_lr_ratio": vector_lr_ratio,
            "vector_betas": vector_betas,
        }
        super().__init__(params, defaults)

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """Whether the gradient of `p` is corrected."""
        return "corrected" if p.ndim == 2 else "plain"

    def init_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Both moments, and the last gradient."""
        last = {"last_grad": torch.zeros_like(p)} if group["kind"] == "corrected" else {}
        return {**adamw.init_state(p), **last}

    def coefficients(self, group: Mapping[str, Any], step: int) -> dict[str, float]:
        """As AdamW's, with the lr and betas of the kind."""
        lr, betas, decay = group["lr"], group["betas"], group["weight_decay"]
        if group["kind"] == "plain":
            lr, betas = lr * group["vector_lr_ratio"], group["vector_betas"]
        return adamw.coefficients(lr, betas, decay, step)

    @staticmethod
    def update(
        params: list[Tensor],
        grads: list[Tensor],
        state: dict[str, list[Tensor]],
        group: Mapping[str, Any],
        coefficients: Mapping[str, Any],
    ) -> None:
        """As in the class docstring."""
        if group["kind"] == "plain":
            betas = group["vector_betas"]
            adamw.update(params, grads, state, {**group, "betas": betas}, coefficients)
            return
        beta1, last = group["betas"][0], state["last_grad"]
        weight = group["gamma"] * beta1 / (1 - beta1)
        c = torch._foreach_sub(grads, last)
        torch._foreach_mul_(c, weight)
        torch._foreach_add_(c, grads)
        torch._foreach_mul_(c, [once(1 / norm.clamp(min=1.0)) for norm in norms(c)])
        torch._foreach_copy_(last, grads)
        adamw.update(params, list(c), state, group, coefficients)
