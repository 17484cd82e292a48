"""The shape of a wrapper: what it does to each parameter around a step of any optimizer.

A wrapper is a docstring, a signature (its hyperparameters, as for an optimizer) and the methods
below that it overrides. It acts on one parameter at a time and keeps what it needs in that
parameter's own dict, so that ranks may share the parameters among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from configs.validation import ConfigError
from optim.core.base import Optimizer

_PIECE = 1 << 18  # elements
BASE_LR = "base_lr"  # key of a group: its rate when the optimizer was built
Own = dict[str, Any]  # what a wrapper keeps for one parameter: tensors and numbers


@dataclass(frozen=True)
class At:
    """Where a parameter stands: its name and group, and the number of this update, from 1."""

    name: str
    group: Mapping[str, Any]
    update: int

    @property
    def lr(self) -> float:
        """The learning rate of this update."""
        return float(self.group["lr"])

    @property
    def lr_factor(self) -> float:
        """This update's rate over the group's base rate, which is the schedule's factor."""
        peak = float(self.group.get("initial_lr", self.group[BASE_LR]))
        return self.lr / peak if peak else 0.0


class Wrapper:
    """Does nothing around a step.

    Args of every subclass: total_steps, the updates of the run, or None if nobody knows them; then
    its hyperparameters, by keyword.
    """

    moves: ClassVar[bool] = True  # whether it moves the weights
    averages: ClassVar[bool] = False  # whether it keeps other weights to evaluate
    judged: bool = False  # whether the average is what an evaluation uses

    def refuse(self, row: Optimizer, others: Mapping[str, Wrapper]) -> str | None:
        """Why it makes no sense over `row` with the wrappers `others`, and how to mend it."""
        return None

    @classmethod
    def keeps_width_rule(cls, values: Mapping[str, Any]) -> bool:
        """Whether muP's rates for the optimizer inside are right with it; `values`: its keys."""
        return True

    def attach(self, row: Optimizer) -> None:
        """Called once, when `row` has been built."""

    def seen(self, at: At) -> dict[str, Any]:
        """Values of the group that the row finds in this update in place of the group's own."""
        return {}

    def needs_old(self, p: Tensor, own: Own, at: At) -> bool:
        """Whether `after` needs the weights from before the update."""
        return False

    def before(self, p: Tensor, at: At) -> None:
        """Change `p`, which has a gradient, before the row's update."""

    def after(self, p: Tensor, old: Tensor | None, own: Own, at: At) -> None:
        """Change `p` after the row's update; `old` is a copy from before it, if needed."""

    def evaluated(self, own: Own) -> Tensor | None:
        """The weights to evaluate in place of those that are trained; None: those."""
        return None

    def begun(self, updates: int) -> bool:
        """Whether, after so many updates, `evaluated` differs from the weights themselves."""
        return False

    def diagnostics(self, at: At) -> dict[str, float]:
        """Numbers worth a curve; `at` is the first group's."""
        return {}


def wide(p: Tensor) -> Tensor:
    """`p` in at least float32, in which wrappers calculate: itself, or a copy."""
    return p.detach().to(torch.promote_types(p.dtype, torch.float32))


def pieces(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """On a CPU views of a megabyte, so that what is calculated in between stays in the cache."""
    if tensors[0].device.type != "cpu" or not all(map(Tensor.is_contiguous, tensors)):
        return [tensors]
    return zip(*(t.view(-1).split(_PIECE) for t in tensors), strict=True)


def updates_of(key: str, value: int | float, total_steps: int | None) -> int:
    """A number of updates, given as such or as a fraction of the run.

    Raises:
        ConfigError: a fraction of a run whose length is not known, or more than the run; one line.
    """
    if isinstance(value, float):
        if total_steps is None:
            raise ConfigError(
                f"optimizer.wrap.{key} = {value} is a fraction of the run, whose length is not"
                " known here; give a number of updates, or total_steps to build_optimizer"
            )
        return round(value * total_steps)
    if total_steps is not None and value > total_steps:
        raise ConfigError(
            f"optimizer.wrap.{key} = {value} is more than the {total_steps} updates of the run;"
            " give fewer, or a fraction of the run such as 0.1"
        )
    return value
