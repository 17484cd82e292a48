"""AdamW as an update over lists, for methods that use it for some of their parameters.

The optimizer `adamw` is torch's fused kernel. This is the same mathematics in the form of
UpdateRule: call its `run` with `update`, `coefficients` and a state of BUFFERS.

    p <- p * (1 - lr * weight_decay)
    m <- beta1 * m + (1 - beta1) * g
    v <- beta2 * v + (1 - beta2) * g^2
    p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
"""

from __future__ import annotations

import math
from typing import Any

import torch

from optim.core.batch import State, Tensors, Values

BUFFERS = ("exp_avg", "exp_avg_sq")


def coefficients(h: Values, step: int) -> dict[str, float]:
    """The factors of weight decay, of the ratio and of the root, with both bias corrections.

    They are factors because a processor divides several times slower than it multiplies. With two
    square roots and several divisions per element, a step would no longer wait for memory only.
    """
    lr, (beta1, beta2) = h["lr"], h["betas"]
    return {
        "decay": 1 - lr * h["weight_decay"],
        "step_size": lr / (1 - beta1**step),
        "root_scale": 1 / math.sqrt(1 - beta2**step),
    }


def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
    """As above; reads "betas" and "eps" of `h`."""
    (beta1, _), m = h["betas"], state["exp_avg"]
    torch._foreach_mul_(params, c["decay"])
    torch._foreach_lerp_(m, grads, 1 - beta1)
    subtract_ratio(params, m, update_denominator(grads, state["exp_avg_sq"], h, c), c["step_size"])


def update_denominator(grads: Tensors, exp_avg_sq: Tensors, h: Values, c: Values) -> Tensors:
    """v <- beta2 * v + (1 - beta2) * g^2; returns sqrt(v / (1 - beta2^t)) + eps."""
    beta2 = h["betas"][1]
    torch._foreach_mul_(exp_avg_sq, beta2)
    torch._foreach_addcmul_(exp_avg_sq, grads, grads, 1 - beta2)
    denominator = torch._foreach_sqrt(exp_avg_sq)
    torch._foreach_mul_(denominator, c["root_scale"])
    torch._foreach_add_(denominator, h["eps"])
    return list(denominator)


def subtract_ratio(
    params: Tensors, numerator: Tensors, denominator: Tensors, step_size: Any
) -> None:
    """p <- p - step_size * numerator / denominator."""
    u = torch._foreach_div(numerator, denominator)
    torch._foreach_mul_(u, step_size)
    torch._foreach_sub_(params, u)
