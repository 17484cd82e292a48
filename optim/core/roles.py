"""Settings by role: what the parameters of a role have of their own.

    [optimizer.roles.embedding]
    lr_ratio = 2.0       # their rate is twice optimizer.lr, whatever that is
    weight_decay = 0.0   # any hyperparameter of the optimizer that acts on parameters by role

A role's settings become ordinary keys of its parameter groups, "lr" included, before the optimizer
is built. So they work for every class, and `group["lr"]` is the rate that acts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from configs.validation import ConfigError, nearest
from optim.core import foreign
from optim.core.base import Optimizer
from optim.core.hyperparameters import complete, schema
from optim.core.schedule import Schedule

Roles = Mapping[str, Mapping[str, Any]]  # by role: "lr_ratio" and hyperparameters

MOVED = {  # hyperparameters of earlier versions
    **{
        f"adamw_{key}": f"optimizer.roles.embedding.{key} and optimizer.roles.vector.{key}"
        for key in ("lr_ratio", "betas", "eps")
    },
    "vector_lr_ratio": "optimizer.roles.vector.lr_ratio",
    "vector_betas": "optimizer.roles.vector.betas",
}


def refuse_moved(cls: type[torch.optim.Optimizer], given: Iterable[str]) -> None:
    """Say where the keys of earlier versions are now.

    Raises:
        ConfigError: `given` has one that `cls` does not know; one line.
    """
    for key in given:
        if key in MOVED and key not in schema(cls):
            raise ConfigError(f"optimizer.{key} is no more; give {MOVED[key]}")


def of_earlier_version(
    cls: type[torch.optim.Optimizer], values: Mapping[str, Any]
) -> dict[str, Any]:
    """`values` of a run that may be of an earlier version, with the keys that `cls` has now.

    Rates and betas that have moved to roles are left out, since they change no state. A method for
    matrices that had no split_qkv did not split.
    """
    known = {key: value for key, value in values.items() if key not in MOVED or key in schema(cls)}
    if len(known) < len(values) and "split_qkv" in schema(cls):
        known.setdefault("split_qkv", False)
    return known


def resolve_roles(
    name: str, cls: type[torch.optim.Optimizer], values: Mapping[str, Any], roles: Roles
) -> dict[str, dict[str, Any]]:
    """`roles` checked against the signature of `cls`, each with its lr_ratio.

    Args:
        name: of the optimizer, for errors.
        cls: its class.
        values: its hyperparameters, all of them.
        roles: by role, "lr_ratio" and any hyperparameter that acts on the role alone.

    Raises:
        ConfigError: an unknown key, one that cannot differ by role, or a wrong value; one line.
    """
    hooks, resolved = foreign.with_hooks(cls), {}
    for role, own in roles.items():
        prefix, ratio = f"optimizer.roles.{role}", own.get("lr_ratio", 1.0)
        given = {key: value for key, value in own.items() if key != "lr_ratio"}
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1e30:
            raise ConfigError(f"{prefix}.lr_ratio = {ratio!r}: should be a number from 0 on")
        known = [key for key in schema(cls) if key != "lr"]
        valid = [key for key in known if hooks.acts_on(role, key)]
        if "lr" in given:
            hint = "give lr_ratio, its factor on optimizer.lr, which a sweep of that keeps"
            raise ConfigError(f"unknown key '{prefix}.lr'; {hint}")
        for key in given:
            if key not in known:
                hint = nearest(key, ["lr_ratio", *valid])
                raise ConfigError(f"unknown key '{prefix}.{key}'; {hint}")
        same = [key for key in given if key not in valid]
        same += ["lr_ratio"] if "lr_ratio" in own and not hooks.acts_on(role, "lr") else []
        if same:
            may = ", ".join([*(["lr_ratio"] if hooks.acts_on(role, "lr") else []), *valid])
            raise ConfigError(
                f"{prefix}.{same[0]}: '{name}' cannot have its own {same[0]} for this role;"
                f" it can have: {may or 'none'}"
            )
        full = complete(cls, {**values, **given}, prefix)
        if missing := [key for key in given if key not in full]:
            raise ConfigError(
                f"{prefix}.{missing[0]} = none: leave it out; the role has optimizer.{missing[0]}"
            )
        resolved[role] = {"lr_ratio": float(ratio), **{key: full[key] for key in given}}
    return resolved


def with_roles(param_groups: Iterable[Any], lr: float | None, roles: Roles) -> list[Any]:
    """The groups, each with the settings of its "role" as keys of its own; `roles` is resolved.

    A setting by role stands above the group's own; `lr` is the rate of groups that have none.

    Raises:
        ConfigError: no group has the role, or there is no rate to scale; one line.
    """
    groups = list(param_groups)
    check_present("optimizer", roles, groups)
    result = []
    for group in groups:
        if isinstance(group, dict) and group.get("role") in roles:
            own = dict(roles[group["role"]])
            rate, ratio = group.get("lr", lr), own.pop("lr_ratio")
            if rate is None:
                raise ConfigError(f"optimizer.roles.{group['role']}: give optimizer.lr beside it")
            group = {**group, **own, "lr": rate * ratio}
        result.append(group)
    return result


def check_present(table: str, roles: Iterable[str], groups: Sequence[Any]) -> None:
    """Check that a group has each of `roles`, which `table` names.

    Raises:
        ConfigError: no parameter has one of them; one line.
    """
    found = {group["role"] for group in groups if isinstance(group, dict) and "role" in group}
    for role in roles:
        if role not in found:
            here = ", ".join(sorted(found)) if found else 'none, since no group has a key "role"'
            raise ConfigError(
                f"{table}.roles.{role}: no parameter has this role; the roles here: {here}"
            )


def schedule_conflict(optimizer: Optimizer, schedule: Schedule) -> str | None:
    """A one-line warning if a schedule of its parameters works against the method."""
    used = {id(own): own for own in map(schedule.of, _roles(optimizer))}
    return next(filter(None, map(optimizer.check_schedule, used.values())), None)


def curves(optimizer: Optimizer, schedule: Schedule) -> dict[str, float | Tensor]:
    """Numbers worth a curve each, by their names in the log; tensors as in `diagnostics`.

    These are the optimizer's own, and the rates of roles where roles have rates or schedules of
    their own: "optimizer/lr_embedding". The rate of the first role is "train/lr".
    """
    values = optimizer.diagnostics()
    groups = optimizer.param_groups
    if schedule.roles or len({group["initial_lr"] for group in groups}) > 1:
        values = {**values, **{f"lr_{group['role']}": group["lr"] for group in groups[1:]}}
    return {f"optimizer/{name}": value for name, value in values.items()}


def _roles(optimizer: Optimizer) -> list[str | None]:
    return [group.get("role") for group in optimizer.param_groups]
