"""AdamW as an update over lists, for methods that use it for some of their parameters.

As `adamw` alone it is torch's fused kernel; this is the same mathematics in the form of
UpdateRule: pass `update` to its `run`, with `coefficients` and state of `init_state`.

    p <- p * (1 - lr * weight_decay)
    m <- beta1 * m + (1 - beta1) * g
    v <- beta2 * v + (1 - beta2) * g^2
    p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def init_state(p: Tensor) -> dict[str, Tensor]:
    """Both moments."""
    return {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}


def coefficients(
    lr: float, betas: tuple[float, float], weight_decay: float, step: int
) -> dict[str, float]:
    """What decay leaves, lr over the correction of m, and one over the root of that of v.

    Factors, never divisors: a processor divides several times slower than it multiplies, and
    with two square roots and divisions for an element memory is no longer what a step waits for.
    """
    beta1, beta2 = betas
    return {
        "decay": 1 - lr * weight_decay,
        "step_size": lr / (1 - beta1**step),
        "root_scale": 1 / math.sqrt(1 - beta2**step),
    }


def update(
    params: list[Tensor],
    grads: list[Tensor],
    state: dict[str, list[Tensor]],
    group: Mapping[str, Any],
    coefficients: Mapping[str, Any],
) -> None:
    """With "betas" and "eps" of the group."""
    (beta1, _), m = group["betas"], state["exp_avg"]
    torch._foreach_mul_(params, coefficients["decay"])
    torch._foreach_lerp_(m, grads, 1 - beta1)
    denominator = root_mean_square(grads, state["exp_avg_sq"], group, coefficients)
    subtract_ratio(params, m, denominator, coefficients["step_size"])


def root_mean_square(
    grads: list[Tensor],
    exp_avg_sq: list[Tensor],
    group: Mapping[str, Any],
    coefficients: Mapping[str, Any],
) -> list[Tensor]:
    """v <- beta2 * v + (1 - beta2) * g^2; returns sqrt(v / (1 - beta2^t)) + eps."""
    beta2 = group["betas"][1]
    torch._foreach_mul_(exp_avg_sq, beta2)
    torch._foreach_addcmul_(exp_avg_sq, grads, grads, 1 - beta2)
    denominator = torch._foreach_sqrt(exp_avg_sq)
    torch._foreach_mul_(denominator, coefficients["root_scale"])
    torch._foreach_add_(denominator, group["eps"])
    return list(denominator)


def subtract_ratio(
    params: list[Tensor], numerator: list[Tensor], denominator: list[Tensor], step_size: Any
) -> None:
    """p <- p - step_size * numerator / denominator."""
    u = torch._foreach_div(numerator, denominator)
    torch._foreach_mul_(u, step_size)
    torch._foreach_sub_(params, u)
