"""MARS: AdamW on gradients corrected by the change since the last step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core import adamw
from optim.core.base import UpdateRule
from optim.core.batch import Params, State, Tensors, Values
from optim.core.hyperparameters import Betas, NonNegative
from optim.core.norms import norms, once
from optim.core.width import ELEMENTWISE


class MARS(UpdateRule):
    """AdamW on gradients corrected by their change since the last step (MARS-AdamW, approximate).

    Source: Yuan et al., "MARS: Unleashing the Power of Variance Reduction for Training Large
    Models", arXiv:2411.10438, with the last gradient at the last weights ("MARS-approx").

        c = g + gamma * beta1 / (1 - beta1) * (g - g_last)       (g_last_0 = 0)
        c <- c / max(norm(c), 1)                                 (norm over the tensor)
        m <- beta1 * m + (1 - beta1) * c
        v <- beta2 * v + (1 - beta2) * c^2
        p <- p - lr * ((m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p)

    Parameters that are not matrices: AdamW.
    Differs: the authors' lr_1d and betas_1d are settings of the role "vector": lr_ratio, betas. The
    authors' code keeps the last gradient by reference, so that zeroing gradients in place undoes
    the correction; here it is a copy. The exact variant, which also takes the gradient of the new
    batch at the old weights, is not here: it doubles the cost of a step.
    Tuning: the authors train GPT-2 124M at ten times AdamW's lr, 6e-3, with gamma 0.025 and decay
    0.01. g_last is the last gradient after clipping. The embedding counts as a matrix.
    State: exp_avg, exp_avg_sq, last_grad: 12 bytes per parameter of a matrix, 8 of another.
    """

    buffers = adamw.BUFFERS
    width_powers = ELEMENTWISE

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 3e-3,
        betas: Betas = (0.95, 0.99),
        gamma: NonNegative = 0.025,
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(params, locals())

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """Whether the gradient of `p` is corrected."""
        return "corrected" if p.ndim == 2 else "plain"

    def init_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """Both moments, and the last gradient."""
        last = {"last_grad": torch.zeros_like(p)} if h["kind"] == "corrected" else {}
        return {**super().init_state(p, h), **last}

    def coefficients(self, h: Values, step: int) -> Values:
        return adamw.coefficients(h, step)

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        if h["kind"] == "plain":
            adamw.update(params, grads, state, h, c)
            return
        beta1, last = h["betas"][0], state["last_grad"]
        weight = h["gamma"] * beta1 / (1 - beta1)
        corrected = torch._foreach_sub(grads, last)
        torch._foreach_mul_(corrected, weight)
        torch._foreach_add_(corrected, grads)
        scales = [once(1 / norm.clamp(min=1.0)) for norm in norms(corrected)]
        torch._foreach_mul_(corrected, scales)
        torch._foreach_copy_(last, grads)
        adamw.update(params, list(corrected), state, h, c)
