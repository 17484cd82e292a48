"""Wrappers around any optimizer, by name: `[optimizer.wrap.NAME]` in a configuration.

    optimizer = wrapped(optimizer, {"ema": {"decay": 0.99}}, total_steps=1000)

They act in the order of the table, whatever the order in which they are given. In an update of w:

    momentum_schedule   the momentum that the optimizer sees
    decay               its weight decay: off inside; before the update, or after it if cautious
    hyperball           the step of a hidden matrix, decay included, on its sphere
    outer_nesterov      every few updates, from where the last outer step left w
    ema, lawa, tail     averages of w as it is now, for evaluation only
    ema_nesterov        w is kept; the parameters look ahead of it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.validation import ConfigError, nearest
from optim.core.base import Optimizer
from optim.core.hyperparameters import complete
from optim.wrappers.averages import EMA, LAWA, Tail
from optim.wrappers.base import Wrapper
from optim.wrappers.decay import Decay
from optim.wrappers.ema_nesterov import EMANesterov
from optim.wrappers.hyperball import Hyperball
from optim.wrappers.momentum_schedule import MomentumSchedule
from optim.wrappers.outer_nesterov import OuterNesterov
from optim.wrappers.wrapped import Wrapped

WRAPPERS: dict[str, type[Wrapper]] = {
    "momentum_schedule": MomentumSchedule,
    "decay": Decay,
    "hyperball": Hyperball,
    "outer_nesterov": OuterNesterov,
    "ema": EMA,
    "lawa": LAWA,
    "tail": Tail,
    "ema_nesterov": EMANesterov,
}


def resolve_wrap(table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`table` checked against the signatures of its wrappers, with their defaults, in order.

    Raises:
        ConfigError: unknown wrapper, unknown key, wrong type; one line.
    """
    for name, values in table.items():
        if name not in WRAPPERS:
            raise ConfigError(f"unknown wrapper 'optimizer.wrap.{name}'; {nearest(name, WRAPPERS)}")
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"optimizer.wrap.{name} = {values!r}: should be a table of its hyperparameters;"
                f" {{}} takes their defaults"
            )
    return {
        name: complete(cls, table[name], f"optimizer.wrap.{name}")
        for name, cls in WRAPPERS.items()
        if name in table
    }


def wrapped(
    optimizer: Optimizer, table: Mapping[str, Any], total_steps: int | None = None
) -> Optimizer:
    """`optimizer` with the wrappers of `table` around it; itself if there are none.

    Args:
        optimizer: any, with the project's hooks.
        table: hyperparameters by the wrapper's name.
        total_steps: updates of the run, for what is given as a fraction of it.

    Raises:
        ConfigError: as `resolve_wrap`; or a wrapper makes no sense over this optimizer, beside
            another wrapper, or in a run of this length. One line.
    """
    if not table:
        return optimizer
    values = resolve_wrap(table)
    parts = {name: WRAPPERS[name](total_steps, **given) for name, given in values.items()}  # type: ignore[call-arg]
    _refuse(optimizer, parts)
    return Wrapped(optimizer, parts)


def _refuse(row: Optimizer, parts: Mapping[str, Wrapper]) -> None:
    for name, part in parts.items():
        reason = part.refuse(row, parts)
        if reason is None and part.moves and row.keeps_weights:
            reason = "keeps its own account of the weights, so that nothing else may move them"
        if reason:
            row_name = type(row).__name__
            raise ConfigError(
                f"optimizer.wrap.{name}: {row_name} {reason}; without the wrapper it runs"
            )
    judged = [name for name, part in parts.items() if part.averages and part.judged]
    if len(judged) > 1:
        both = " and ".join(f"optimizer.wrap.{name}.judged" for name in judged)
        raise ConfigError(f"{both} are true; one average can be judged: set the other to false")
