"""NAdamW: AdamW that looks one step of momentum ahead."""

from __future__ import annotations

import torch

from optim.core import adamw
from optim.core.base import UpdateRule
from optim.core.batch import Params, State, Tensors, Values
from optim.core.hyperparameters import Betas, NonNegative
from optim.core.width import ELEMENTWISE


class NAdamW(UpdateRule):
    """AdamW with Nesterov momentum, in the meaning of AlgoPerf.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam", ICLR 2016 workshop, with a constant
    beta1, as in Choi et al., arXiv:1910.05446, table 1; AlgoPerf's baseline of this name.

        p <- p * (1 - lr * weight_decay)
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        n = beta1 * m + (1 - beta1) * g
        p <- p - lr * (n / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Differs: from torch's NAdam (`nadam` here), which raises beta1 from half its value over hundreds
    of steps and divides by the product of all of them: its early steps are much smaller. And from
    optax.nadamw, which corrects the bias of the look-ahead as of the next step: at beta1 0.9 its
    first step is 1.474 times AdamW's, not 1.9.
    Tuning: lr, weight_decay and betas as AdamW. The first step is (1 + beta1) times AdamW's.
    State: exp_avg, exp_avg_sq: 8 bytes per parameter.
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

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        (beta1, _), m = h["betas"], state["exp_avg"]
        torch._foreach_mul_(params, c["decay"])
        torch._foreach_lerp_(m, grads, 1 - beta1)
        denominator = adamw.update_denominator(grads, state["exp_avg_sq"], h, c)
        n = torch._foreach_lerp(m, grads, 1 - beta1)
        adamw.subtract_ratio(params, list(n), denominator, c["step_size"])
