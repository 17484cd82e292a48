"""Averages of the weights, to evaluate beside the weights themselves; training goes on without."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from configs.validation import ConfigError
from optim.core.base import Optimizer
from optim.core.hyperparameters import Beta, Count, PositiveSteps, Steps
from optim.wrappers.base import At, Own, Wrapper, updates_of, wide


class _Average(Wrapper):
    """An average that the trainer evaluates beside the weights, or `judged` in their place."""

    moves = False
    averages = True

    def __init__(self, judged: bool) -> None:
        self.judged = judged

    def refuse(self, row: Optimizer, others: Mapping[str, Wrapper]) -> str | None:
        if row.averages_weights:
            return "averages its weights itself"
        return None

    def evaluated(self, own: Own) -> Tensor | None:
        """The average; None before it has begun."""
        return own.get("average")

    def begun(self, updates: int) -> bool:
        return updates > 0


class EMA(_Average):
    """An exponential moving average of the weights after each update.

    Source: Polyak & Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging", with
    exponential weights, corrected for its start as in Kingma & Ba, arXiv:1412.6980.

        n = updates so far;   average <- average + (1 - decay) / (1 - decay^n) * (p - average)

    Differs: with the correction the average of equal weights is these weights, and the initial
    weights are not in it; other code starts at them, or lets the decay grow.
    Tuning: decay 0.999 averages the last 1,000 updates; 2 to 10 % of the run is usual. It stands
    in for part of a cool-down, so compare it at a constant learning rate, too.
    State: average: 4 bytes per parameter, of all parameters; a copy of them while evaluating.
    """

    def __init__(
        self, total_steps: int | None, *, decay: Beta = 0.999, judged: bool = False
    ) -> None:
        super().__init__(judged)
        self.decay = decay

    def after(self, p: Tensor, old: Tensor | None, own: Own, at: At) -> None:
        own["count"] = own.get("count", 0) + 1
        if "average" not in own:
            own["average"] = wide(p).clone()
            return
        share = (1 - self.decay) / (1 - self.decay ** own["count"])
        own["average"].lerp_(wide(p), share)


class LAWA(_Average):
    """The mean of the last copies of the weights, taken at equal distances (latest weights).

    Source: Kaddour, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest
    Weight Averaging", arXiv:2209.14981; for language models: Sanyal et al., arXiv:2306.03241.

        every `every` updates: keep a copy of p, and of all copies the newest `last`
        average = mean of the copies

    Differs: copies every part of the run, where the papers take an epoch or checkpoints.
    Tuning: copies far apart (1 % of the run or more) and a large learning rate.
    State: copies: 4 * `last` bytes per parameter, of all parameters; a copy while evaluating.
    """

    def __init__(
        self,
        total_steps: int | None,
        *,
        last: Count = 5,
        every: PositiveSteps = 0.02,
        judged: bool = False,
    ) -> None:
        super().__init__(judged)
        self.last, self.every = last, max(1, updates_of("lawa.every", every, total_steps))

    def after(self, p: Tensor, old: Tensor | None, own: Own, at: At) -> None:
        if at.update <= self.every:
            own.clear()  # copies of another run, whose state goes on in this one
        if at.update % self.every == 0:
            name = f"copy_{at.update // self.every % self.last}"
            if name in own:
                own[name].copy_(p)
            else:
                own[name] = wide(p).clone()

    def evaluated(self, own: Own) -> Tensor | None:
        """The mean of the copies, in one order for any order in which they were taken."""
        copies = [own[f"copy_{i}"] for i in range(self.last) if f"copy_{i}" in own]
        if not copies:
            return None
        total = copies[0].clone()
        for each in copies[1:]:
            total += each
        return total / len(copies)

    def begun(self, updates: int) -> bool:
        return updates >= self.every


class Tail(_Average):
    """The mean of the weights after every update from `start` to now.

    Source: Polyak & Juditsky 1992; of a last part of the run: Jain et al., arXiv:1610.03774. For
    language models in place of a cool-down: Hägele et al., arXiv:2405.18392, section 4.

        n = updates since `start`;   average <- average + (p - average) / n

    Differs: nothing.
    Tuning: `start` as late as a cool-down would begin, with a constant learning rate.
    State: average: 4 bytes per parameter, of all parameters; a copy of them while evaluating.
    """

    def __init__(
        self, total_steps: int | None, *, start: Steps = 0.8, judged: bool = False
    ) -> None:
        super().__init__(judged)
        self.start = updates_of("tail.start", start, total_steps)
        if total_steps is not None and self.start >= total_steps:
            raise ConfigError(
                f"optimizer.wrap.tail.start = {start} is the end of the run of {total_steps}"
                " updates, so that no average would begin; give an earlier start"
            )

    def after(self, p: Tensor, old: Tensor | None, own: Own, at: At) -> None:
        if at.update <= self.start + 1:
            own.clear()  # the average of another run, whose state goes on in this one
        if at.update <= self.start:
            return
        own["count"] = own.get("count", 0) + 1
        if "average" not in own:
            own["average"] = wide(p).clone()
        else:
            own["average"].lerp_(wide(p), 1 / own["count"])

    def begun(self, updates: int) -> bool:
        return updates > self.start
