"""Lion: the sign of an interpolated momentum."""

from __future__ import annotations

import torch

from optim.core.base import UpdateRule
from optim.core.batch import Params, State, Tensors, Values
from optim.core.hyperparameters import Betas, NonNegative
from optim.core.width import ELEMENTWISE


class Lion(UpdateRule):
    """The sign of an interpolated momentum: every coordinate moves by lr.

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675,
    Algorithm 2.

        u = sign(beta1 * m + (1 - beta1) * g)                    (sign(0) = 0)
        p <- p * (1 - lr * weight_decay) - lr * u
        m <- beta2 * m + (1 - beta2) * g

    Differs: nothing. lion-pytorch has an option, `decoupled_weight_decay`, that divides the decay
    by the first lr; here decay is AdamW's.
    Tuning: the update has RMS 1, Adam's about 0.2 to 0.4: the paper advises lr 3 to 10 times below
    AdamW's and weight_decay 3 to 10 times above, so that their product stays the same.
    State: exp_avg: 4 bytes per parameter.
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

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        (beta1, beta2), m = h["betas"], state["exp_avg"]
        u = torch._foreach_lerp(m, grads, 1 - beta1)
        torch._foreach_sign_(u)
        torch._foreach_mul_(u, c["lr"])
        torch._foreach_mul_(params, c["decay"])
        torch._foreach_sub_(params, u)
        torch._foreach_lerp_(m, grads, 1 - beta2)
