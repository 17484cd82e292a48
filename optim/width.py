"""Rates by width: what model.parametrization = mup means for the parameters of each role.

lr of a role is multiplied by (n_embd / base_n_embd) ** power, a power of its optimizer's own rule,
and weight_decay is divided by it: lr * weight_decay, what a step takes off a weight, stays the
same, as in Yang et al.'s package (microsoft/mup). Settings by role of the user come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from configs import ConfigError, Model
from configs.schema import Optimizer
from optim.core import foreign
from optim.core.hyperparameters import complete
from optim.core.roles import Roles
from optim.core.width import ELEMENTWISE
from optim.wrappers import WRAPPERS

Rows = Mapping[str, type[torch.optim.Optimizer]]


def by_width(
    table: Optimizer, shape: Model, rows: Rows, cls: type[torch.optim.Optimizer], roles: Roles
) -> Roles:
    """`roles` with the rates and decays that muP gives; as they are without it.

    Args:
        table: [optimizer], resolved.
        shape: of the model.
        rows: all optimizers by name, for errors.
        cls: the class of the optimizer.
        roles: settings by role, resolved.

    Raises:
        ConfigError: no rule by width is known for the optimizer, its hyperparameters or a wrapper
            around it, or the rule lacks a role; one line.
    """
    if shape.parametrization is None:
        return roles
    for name, values in table.wrap.items():
        if not WRAPPERS[name].keeps_width_rule(values):
            raise ConfigError(
                f"model.parametrization = mup: no rule by width is known with optimizer.wrap.{name}"
                f" ({', '.join(f'{k} = {v}' for k, v in values.items())}); leave one of them out"
            )
    result = {}
    for role in ELEMENTWISE:
        own, values = dict(roles.get(role, {})), table.hyperparameters
        powers = foreign.with_hooks(cls).width_rule({**values, **own})
        if powers is None:
            raise ConfigError(_refusal(table.name, rows))
        if role not in powers:
            raise ConfigError(
                f"model.parametrization = mup: the rule by width of '{table.name}' has no power for"
                f" role '{role}'; it needs {', '.join(ELEMENTWISE)}"
            )
        factor = shape.width_ratio ** powers[role]
        own["lr_ratio"] = own.get("lr_ratio", 1.0) * factor
        # vectors do not decay, unless the user says so (train_gpt2.GPT.parameter_groups)
        decay = own.get("weight_decay", values.get("weight_decay") if role != "vector" else None)
        result[role] = own if decay is None else {**own, "weight_decay": decay / factor}
    return {**roles, **result}


def _refusal(name: str, rows: Rows) -> str:
    known = [row for row, cls in rows.items() if foreign.with_hooks(cls).width_rule(_defaults(cls))]
    if name in known:
        why = f"no rule by width is known for '{name}' with these hyperparameters"
        return f"model.parametrization = mup: {why}; docs/optimizers.md (Width) says with which"
    return (
        f"model.parametrization = mup: no rule by width is known for '{name}'; give optimizer.name"
        f" one of {', '.join(known)}, or leave parametrization out"
    )


def _defaults(cls: type[torch.optim.Optimizer]) -> dict[str, Any]:
    return complete(cls, {}, "optimizer")
