"""A schedule of momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.validation import ConfigError
from optim.core.base import Optimizer, UpdateRule
from optim.core.hyperparameters import Beta, Steps
from optim.core.matrix import MatrixRule
from optim.wrappers.base import At, Wrapper, updates_of


class MomentumSchedule(Wrapper):
    """Momentum that rises at the start of the run and falls at its end, linearly.

    Source: modded-nanogpt, which takes Muon's from 0.85 to 0.95 over 300 updates, and entry 46 of
    its track 3, which takes it back over the last 200.

        t = updates done so far, of T;   m = the group's momentum, or the first of its betas
        start + (m - start) * t / warmup_steps                       until warmup_steps
        m                                                            then
        m + (end - m) * (t - T + cooldown_steps) / cooldown_steps    in the last cooldown_steps

    A group with "momentum" has that one scheduled (in Muon only hidden matrices use it), any other
    the first of its "betas". A group whose momentum is 0 keeps it.
    Differs: a correction of Adam's bias takes the momentum of the update.
    Tuning: as above. An optimizer of ours that is compiled has its momentum as a constant in the
    code; with a schedule it is not compiled, and an element-wise step takes several times as long.
    AdamW inside a method for matrices with "momentum" is compiled still: its betas stay.
    State: none.
    """

    moves = False

    def __init__(
        self,
        total_steps: int | None,
        *,
        start: Beta = 0.85,
        end: Beta = 0.85,
        warmup_steps: Steps = 0.1,
        cooldown_steps: Steps = 0.06,
    ) -> None:
        self.start, self.end, self.total = start, end, total_steps
        self.rise = updates_of("momentum_schedule.warmup_steps", warmup_steps, total_steps)
        self.fall = updates_of("momentum_schedule.cooldown_steps", cooldown_steps, total_steps)
        if self.fall and total_steps is None:
            raise ConfigError(
                f"optimizer.wrap.momentum_schedule.cooldown_steps = {cooldown_steps} needs the"
                " length of the run, which is not known here; give 0, or total_steps to"
                " build_optimizer"
            )
        if total_steps is not None and self.rise + self.fall > total_steps:
            raise ConfigError(
                f"optimizer.wrap.momentum_schedule: warmup_steps = {warmup_steps} and"
                f" cooldown_steps = {cooldown_steps} are more than the {total_steps} updates of the"
                " run; make them shorter"
            )

    def refuse(self, row: Optimizer, others: Mapping[str, Wrapper]) -> str | None:
        if row.averages_weights:
            return "uses its momentum to average weights, which a change of it would break"
        if not any(_momentum(group) for group in row.param_groups):
            return "has no momentum (no 'momentum' or 'betas' above 0)"
        return None

    def attach(self, row: Optimizer) -> None:
        constant = isinstance(row, MatrixRule) and "momentum" in row.defaults  # AdamW's betas
        if isinstance(row, UpdateRule) and not constant:
            row.compile = False

    def seen(self, at: At) -> dict[str, Any]:
        group = at.group
        if not _momentum(group):
            return {}
        if "momentum" in group:
            return {"momentum": self._value(group["momentum"], at.update - 1)}
        first, *others = group["betas"]
        return {"betas": (self._value(first, at.update - 1), *others)}

    def diagnostics(self, at: At) -> dict[str, float]:
        """The momentum of the update, in the first group."""
        peak = _momentum(at.group)
        return {"momentum": self._value(peak, at.update - 1) if peak else 0.0}

    def _value(self, peak: float, done: int) -> float:
        if self.fall and self.total is not None and done > self.total - self.fall:
            part = min(1.0, (done - (self.total - self.fall)) / self.fall)
            return peak + (self.end - peak) * part
        if done < self.rise:
            return self.start + (peak - self.start) * done / self.rise
        return peak


def _momentum(group: Any) -> float:
    return float(group.get("momentum", group.get("betas", (0.0,))[0]))
