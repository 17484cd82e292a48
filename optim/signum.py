"""Signum: the sign of the momentum; without momentum, signSGD."""

from __future__ import annotations

import torch
from torch import Tensor

from optim.core.base import UpdateRule
from optim.core.batch import Params, State, Tensors, Values
from optim.core.hyperparameters import Beta, NonNegative
from optim.core.width import ELEMENTWISE


class Signum(UpdateRule):
    """The sign of the momentum: every coordinate moves by lr.

    Source: Bernstein et al., "signSGD", arXiv:1802.04434, Algorithms 1 (momentum 0) and 2.

        m <- momentum * m + (1 - momentum) * g                   (m_0 = 0)
        p <- p * (1 - lr * weight_decay) - lr * sign(m)          (sign(0) = 0)

    With nesterov the sign is of momentum * m + (1 - momentum) * g, with the new m.
    Differs: from some published code, which starts m at a copy of the weights; the paper at zero.
    Nesterov is not in the paper. Whether m is an average or a sum does not change its sign, nor
    that of its Nesterov form.
    Tuning: as Lion: lr 3 to 10 times below AdamW's, weight_decay above it by the same factor.
    State: momentum_buffer: 4 bytes per parameter; none with momentum 0.
    """

    buffers = ("momentum_buffer",)
    width_powers = ELEMENTWISE

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-4,
        momentum: Beta = 0.9,
        nesterov: bool = False,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        if nesterov and momentum == 0:
            raise ValueError("nesterov = true needs a momentum above 0")
        super().__init__(params, locals())

    def init_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """The momentum, if there is one."""
        return super().init_state(p, h) if h["momentum"] else {}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        momentum, direction = h["momentum"], grads
        if momentum:
            direction = state["momentum_buffer"]
            torch._foreach_lerp_(direction, grads, 1 - momentum)
            if h["nesterov"]:
                direction = list(torch._foreach_lerp(direction, grads, 1 - momentum))
        u = torch._foreach_sign(direction)
        torch._foreach_mul_(u, c["lr"])
        torch._foreach_mul_(params, c["decay"])
        torch._foreach_sub_(params, u)
