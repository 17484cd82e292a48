"""AdEMAMix: Adam with a second, slow average of the gradients."""

from __future__ import annotations

import math

import torch

from optim.core import adamw
from optim.core.base import UpdateRule
from optim.core.batch import Params, State, Tensors, Values
from optim.core.hyperparameters import Beta, NonNegative, OpenRatio, RunSteps
from optim.core.width import ELEMENTWISE


class AdEMAMix(UpdateRule):
    """Adam with a second, slow average of the gradients added to the first.

    Source: Pagliardini, Ablin & Grangier, "The AdEMAMix Optimizer: Better, Faster, Older",
    arXiv:2409.03137, Algorithm 1.

        m1 <- beta1 * m1 + (1 - beta1) * g
        m2 <- beta3(t) * m2 + (1 - beta3(t)) * g
        v <- beta2 * v + (1 - beta2) * g^2
        u = (m1 / (1 - beta1^t) + alpha(t) * m2) / (sqrt(v / (1 - beta2^t)) + eps)
        p <- p - lr * (u + weight_decay * p)

        alpha(t) = alpha * min(t / warmup_steps, 1)
        1 / log(beta3(t)) goes linearly from 1 / log(beta1) to 1 / log(beta3) over warmup_steps

    Differs: nothing. The paper has one warm-up for alpha and one for beta3, and sets both to the
    length of the run. The authors' code adds 1e-8 inside the logarithms.
    Tuning: lr as AdamW; alpha 4 to 10. warmup_steps is a fraction of the run, by default all of it
    as in the paper, or a number of updates: with 0 both have their full value at once, which the
    paper finds unstable. beta3's memory, 1 / (1 - beta3) updates, should be much shorter than the
    run: take 0.999 below 50,000 updates.
    State: exp_avg, exp_avg_slow, exp_avg_sq: 12 bytes per parameter.
    """

    buffers = (*adamw.BUFFERS, "exp_avg_slow")
    width_powers = ELEMENTWISE

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        betas: tuple[OpenRatio, Beta, OpenRatio] = (0.9, 0.999, 0.9999),  # logarithms: not of 0
        alpha: NonNegative = 5.0,
        warmup_steps: RunSteps = 1.0,
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        if betas[2] < betas[0]:
            raise ValueError(f"betas = {betas}: the third, slow one should not be below the first")
        super().__init__(params, locals())

    def coefficients(self, h: Values, step: int) -> Values:
        """alpha and beta3 of this step, and Adam's corrections."""
        beta1, beta2, beta3 = h["betas"]
        part = min(step / h["warmup_steps"], 1.0) if h["warmup_steps"] else 1.0
        inverse = (1 - part) / math.log(beta1) + part / math.log(beta3)
        slow = math.exp(1 / inverse)
        return {
            **super().coefficients(h, step),
            "scale": 1 / (1 - beta1**step),
            "root_scale": 1 / math.sqrt(1 - beta2**step),
            "alpha": h["alpha"] * part,
            "slow": slow,
            "slow_rest": 1 - slow,
        }

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        m1, m2 = state["exp_avg"], state["exp_avg_slow"]
        torch._foreach_mul_(params, c["decay"])
        torch._foreach_lerp_(m1, grads, 1 - h["betas"][0])
        torch._foreach_mul_(m2, c["slow"])
        torch._foreach_add_(m2, torch._foreach_mul(grads, c["slow_rest"]))
        denominator = adamw.update_denominator(grads, state["exp_avg_sq"], h, c)
        mix = torch._foreach_mul(m1, c["scale"])
        torch._foreach_add_(mix, torch._foreach_mul(m2, c["alpha"]))
        adamw.subtract_ratio(params, list(mix), denominator, c["lr"])
