"""Weight decay in other forms than the optimizer's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from optim.core.base import Optimizer
from optim.wrappers.base import At, Own, Wrapper, pieces, wide


class Decay(Wrapper):
    """Decoupled weight decay that is cautious, scaled by the schedule, or free of the rate.

    Source: cautious: Chen et al., "Cautious Weight Decay", arXiv:2510.12402; "lr_squared" (AdamC):
    Defazio, "Why Gradients Rapidly Increase Near the End of Training", arXiv:2506.02285;
    "schedule": Loshchilov & Hutter, arXiv:1711.05101, as in Wortsman et al., arXiv:2309.14322.

        u is what the optimizer subtracts in this update, its own decay being off
        scale "lr":          c = lr * weight_decay
        scale "lr_squared":  c = lr * weight_decay * lr / peak       (peak: the group's base rate)
        scale "schedule":    c = weight_decay * lr / peak
        m = [u * p >= 0] if cautious else 1                          (p from before the update)
        p <- p - u - c * m * p

    The optimizer's own decay is replaced by this one, whatever its form; weight_decay stays where
    it was, also by group. A decay that is not cautious comes before the update.
    Differs: AdamC corrects layers that a normalisation follows, and decays others as AdamW; here
    weight_decay by role decides what is decayed. The peak is optimizer.lr (times the lr_ratio of
    the role), which the schedule need not reach. u is found as a difference of weights, so where an
    update is lost in rounding it counts as 0, and the weight decays.
    Tuning: cautious: the optimizer's own weight_decay, or up to twice that. "lr_squared": as with
    AdamW, or larger. "schedule": weight_decay times lr of AdamW, so 1e-4 in place of 0.1.
    State: none; cautious: memory for a copy of the weights, which is no state.
    """

    def __init__(
        self,
        total_steps: int | None,
        *,
        cautious: bool = False,
        scale: Literal["lr", "lr_squared", "schedule"] = "lr",
    ) -> None:
        self.cautious, self.scale = cautious, scale

    def refuse(self, row: Optimizer, others: Mapping[str, Wrapper]) -> str | None:
        if "weight_decay" not in row.defaults:
            return "has no weight_decay, which this changes"
        if estimates_its_step(row):
            return "finds its own step size, which its decay has to follow: use its own decay"
        return None

    @classmethod
    def keeps_width_rule(cls, values: Mapping[str, Any]) -> bool:
        return values["scale"] != "schedule"  # which has no lr beside weight_decay

    def seen(self, at: At) -> dict[str, Any]:
        return {"weight_decay": 0.0} if "weight_decay" in at.group else {}

    def needs_old(self, p: Tensor, own: Own, at: At) -> bool:
        return self.cautious and self._amount(at) > 0

    def before(self, p: Tensor, at: At) -> None:
        if not self.cautious and (amount := self._amount(at)):
            p.mul_(1 - amount)

    def after(self, p: Tensor, old: Tensor | None, own: Own, at: At) -> None:
        if not self.cautious or old is None or not (amount := self._amount(at)):
            return
        weights = wide(p)
        for w, new in pieces(old, weights):
            agrees = torch.sub(w, new).mul_(w).ge_(0.0)  # 1 or 0
            new.sub_(agrees.mul_(w), alpha=amount)
        if weights.dtype != p.dtype:
            p.copy_(weights)

    def _amount(self, at: At) -> float:
        rates = {"lr": at.lr, "lr_squared": at.lr * at.lr_factor, "schedule": at.lr_factor}
        return rates[self.scale] * float(at.group.get("weight_decay", 0.0))


def estimates_its_step(row: Optimizer) -> bool:
    """Whether lr is only a factor on a step size that the method estimates, as Prodigy does."""
    return any("d0" in group for group in row.param_groups)
