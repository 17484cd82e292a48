"""An optimizer around another one: it looks like the inner one and hands on every hook.

Both share their parameter groups, so a learning rate that somebody sets is the one that the inner
optimizer uses. A subclass overrides what it changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core.base import Optimizer
from optim.core.schedule import Schedule


class Around(Optimizer):
    """`inner`, with every method and hook handed on to it."""

    def __init__(self, inner: Optimizer) -> None:
        # torch's constructor would build groups of its own; this makes only what its hooks need
        self.__setstate__({"inner": inner, "defaults": dict(inner.defaults)})

    inner: Optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The inner optimizer's own groups; loading a state replaces them."""
        return self.inner.param_groups

    @property
    def state(self) -> defaultdict[Tensor, Any]:  # type: ignore[override]
        """What is kept for each parameter."""
        return self.inner.state

    @property
    def check_gradients(self) -> bool:
        """Whether the inner optimizer looks at all gradients before a step."""
        return self.inner.check_gradients

    @check_gradients.setter
    def check_gradients(self, value: bool) -> None:
        self.inner.check_gradients = value

    @property
    def averages_weights(self) -> bool:  # type: ignore[override]
        """Whether eval_mode puts other weights in place."""
        return self.inner.averages_weights

    @property
    def row(self) -> Optimizer:
        """The innermost optimizer."""
        return self.inner.row if isinstance(self.inner, Around) else self.inner

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        return self.inner.step(closure)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self.inner.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.inner.load_state_dict(state_dict)

    def check_step(self) -> None:
        self.inner.check_step()

    def refuse_non_finite(self) -> None:
        self.inner.refuse_non_finite()

    def train_mode(self) -> None:
        self.inner.train_mode()

    def eval_mode(self) -> None:
        self.inner.eval_mode()

    def averages(self) -> tuple[str, ...]:
        return self.inner.averages()

    def average_mode(self, name: str) -> None:
        self.inner.average_mode(name)

    def check_schedule(self, schedule: Schedule) -> str | None:
        return self.inner.check_schedule(schedule)

    def curvature_due(self, step: int) -> bool:
        return self.inner.curvature_due(step)

    def update_curvature(self, tokens: int) -> None:
        self.inner.update_curvature(tokens)

    def logits_due(self, step: int) -> bool:
        return self.inner.logits_due(step)

    def update_logits(self, largest: Mapping[str, Tensor]) -> None:
        self.inner.update_logits(largest)

    def update_costs(self) -> list[float]:
        return self.inner.update_costs()

    def by_rank(self, x: Tensor) -> Tensor:
        return self.inner.by_rank(x)

    def diagnostics(self) -> dict[str, float | Tensor]:
        return self.inner.diagnostics()

    def withheld(self) -> dict[Tensor, Tensor] | None:
        return self.inner.withheld()

    def warm_up(self) -> None:
        self.inner.warm_up()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As torch's: the check before a step is the inner optimizer's."""
        torch.optim.Optimizer.__setstate__(self, state)

    def __getstate__(self) -> dict[str, Any]:
        hooks = ("_optimizer_", "_zero_grad_profile_name", "_warned")
        return {k: v for k, v in vars(self).items() if not k.startswith(hooks)}
