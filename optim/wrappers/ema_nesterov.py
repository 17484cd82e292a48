"""EMA-Nesterov: gradients at a point ahead, along the average of past steps."""

from __future__ import annotations

import torch
from torch import Tensor

from configs.validation import ConfigError
from optim.core.hyperparameters import Beta, NonNegative, Steps
from optim.wrappers.base import At, Own, Wrapper, updates_of, wide


class EMANesterov(Wrapper):
    """Look ahead along an average of the weights' displacements before each gradient.

    Source: "EMA-Nesterov", arXiv:2605.25395; entry 39 of modded-nanogpt's track 3.

        p <- w + beta * (lr / peak) * b       (before the gradient; from `start` to `stop`)
        w' = p after the optimizer's update
        b <- gamma * b + (1 - gamma) * (w' - w);   w <- w'

    w is what is evaluated. lr is that of the update before, peak the group's base rate.
    Differs: the look-ahead is added at the end of an update for the next one, so between updates
    the parameters hold p; eval_mode takes it away.
    Tuning: entry 39 has beta 0.6 on Muon from update 500 to 2,400 of 3,150; 0.3 with others.
    With lr 0 the parameters do not move, but w does once: up to the last look-ahead.
    State: w, b: 8 bytes per parameter, of all parameters; a copy of them while evaluating.
    """

    def __init__(
        self,
        total_steps: int | None,
        *,
        beta: NonNegative = 0.6,
        gamma: Beta = 0.99,
        start: Steps = 0.16,
        stop: Steps | None = None,
    ) -> None:
        self.beta, self.gamma = beta, gamma
        self.start = updates_of("ema_nesterov.start", start, total_steps)
        self.stop = None if stop is None else updates_of("ema_nesterov.stop", stop, total_steps)
        if self.stop is not None and self.stop <= self.start:
            raise ConfigError(
                f"optimizer.wrap.ema_nesterov: stop = {stop} is not after start = {start}, so that"
                " it would never look ahead; give a later stop, or an earlier start"
            )

    def needs_old(self, p: Tensor, own: Own, at: At) -> bool:
        return not own

    def after(self, p: Tensor, old: Tensor | None, own: Own, at: At) -> None:
        weights = wide(p)
        if old is not None and not own:
            own.update(weights=old.clone(), velocity=torch.zeros_like(old))
        w, b = own["weights"], own["velocity"]
        b.mul_(self.gamma).sub_(w.sub_(weights), alpha=1 - self.gamma)
        w.copy_(weights)
        if at.update >= self.start and (self.stop is None or at.update < self.stop):
            p.add_(b, alpha=self.beta * at.lr_factor)

    def evaluated(self, own: Own) -> Tensor | None:
        return own.get("weights")
