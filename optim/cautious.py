"""Cautious AdamW and Lion: a coordinate whose update disagrees with its gradient stays put."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core import adamw
from optim.core.base import UpdateRule
from optim.core.batch import Params, State, Tensors, Values
from optim.core.hyperparameters import Betas, NonNegative
from optim.core.norms import once, whole
from optim.core.one_pass import TwoPasses
from optim.core.width import ELEMENTWISE


class CautiousAdamW(UpdateRule):
    """AdamW that moves only coordinates whose momentum has the sign of the gradient.

    Source: Liang et al., "Cautious Optimizers: Improving Training with One Line of Code",
    arXiv:2411.16085, Algorithm 1, on AdamW.

        p <- p * (1 - lr * weight_decay)
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        k = 1 where m * g > 0, else 0;   k <- k / max(mean(k), 1e-3)      (mean over the tensor)
        p <- p - lr * k * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Differs: the paper divides by mean(k) + eps; the authors' code, as here, by at least 1e-3, so
    that a tensor in which hardly anything agrees is not moved by thousands of times lr.
    Tuning: AdamW's hyperparameters. The decay is not masked.
    State: exp_avg, exp_avg_sq: 8 bytes per parameter. Compiled on a CPU, it keeps one buffer as
    large as the largest tensor, which no checkpoint holds.
    """

    buffers = adamw.BUFFERS
    width_powers = ELEMENTWISE

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 1e-2,
    ) -> None:
        super().__init__(params, locals())

    def coefficients(self, h: Values, step: int) -> Values:
        return adamw.coefficients(h, step)

    def held_back(self, p: Tensor, state: Mapping[str, Any], h: Values) -> Tensor | None:
        """Where k is 0."""
        assert p.grad is not None
        beta1, _ = h["betas"]
        m = torch.add(state["exp_avg"] * beta1, p.grad, alpha=1 - beta1)
        return _agreement([m], [p.grad])[0] == 0

    @staticmethod
    def measure(
        params: Tensors, grads: Tensors, state: State, h: Values, c: Values
    ) -> tuple[Tensors, Tensors]:
        """Update m and v; returns the masked ratio and 1 / mean(k)."""
        (beta1, _), m = h["betas"], state["exp_avg"]
        torch._foreach_mul_(m, beta1)
        torch._foreach_add_(m, grads, alpha=1 - beta1)
        masks = _agreement(m, grads)
        scales = [once(1 / (whole(mask) / mask.numel()).clamp(min=1e-3)) for mask in masks]
        u = torch._foreach_mul(m, masks)
        torch._foreach_div_(u, adamw.update_denominator(grads, state["exp_avg_sq"], h, c))
        return list(u), scales

    @staticmethod
    def move(params: Tensors, updates: Tensors, scales: Tensors, h: Values, c: Values) -> None:
        """Decay, and subtract the scaled ratio."""
        u = torch._foreach_mul(updates, scales)
        torch._foreach_mul_(u, c["step_size"])
        torch._foreach_mul_(params, c["decay"])
        torch._foreach_sub_(params, u)

    update = staticmethod(TwoPasses(measure, move))


class CautiousLion(UpdateRule):
    """Lion that moves only coordinates whose update has the sign of the gradient.

    Source: Liang et al., "Cautious Optimizers: Improving Training with One Line of Code",
    arXiv:2411.16085, Algorithm 1, on Lion.

        u = sign(beta1 * m + (1 - beta1) * g)
        k = 1 where u * g > 0, else 0;   k <- k * n / (sum(k) + 1)        (n elements in the tensor)
        p <- p * (1 - lr * weight_decay) - lr * k * u
        m <- beta2 * m + (1 - beta2) * g

    Differs: n / (sum(k) + 1) is the authors' code; the paper writes 1 / (mean(k) + eps). It halves
    the step of a one-element tensor.
    Tuning: Lion's hyperparameters. The decay is not masked.
    State: exp_avg: 4 bytes per parameter. Compiled on a CPU, it keeps one byte for each element of
    the largest tensor, which no checkpoint holds.
    """

    buffers = ("exp_avg",)
    width_powers = ELEMENTWISE

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-4,
        betas: Betas = (0.9, 0.99),
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(params, locals())

    def held_back(self, p: Tensor, state: Mapping[str, Any], h: Values) -> Tensor | None:
        """Where k is 0."""
        assert p.grad is not None
        u = torch.lerp(state["exp_avg"], p.grad, 1 - h["betas"][0])
        return _agreement([u.sign()], [p.grad])[0] == 0

    @staticmethod
    def measure(
        params: Tensors, grads: Tensors, state: State, h: Values, c: Values
    ) -> tuple[Tensors, Tensors]:
        """Update m; returns the masked signs and n / (sum(k) + 1)."""
        (beta1, beta2), m = h["betas"], state["exp_avg"]
        u = torch._foreach_lerp(m, grads, 1 - beta1)
        torch._foreach_sign_(u)
        masks = _agreement(list(u), grads)
        scales = [once(mask.numel() / (whole(mask) + 1)) for mask in masks]
        torch._foreach_mul_(u, masks)
        torch._foreach_lerp_(m, grads, 1 - beta2)
        return list(u), scales

    @staticmethod
    def move(params: Tensors, updates: Tensors, scales: Tensors, h: Values, c: Values) -> None:
        """Decay, and subtract the scaled signs."""
        u = torch._foreach_mul(updates, scales)
        torch._foreach_mul_(u, c["lr"])
        torch._foreach_mul_(params, c["decay"])
        torch._foreach_sub_(params, u)

    update = staticmethod(TwoPasses(measure, move, torch.int8))  # signs fit into a byte


def _agreement(updates: Tensors, grads: Tensors) -> Tensors:
    """1 where the update has the gradient's sign, else 0, in the gradient's dtype."""
    return [(u * g > 0).to(g.dtype) for u, g in zip(updates, grads, strict=True)]
