"""Optimizers and learning-rate schedules by name.

    resolved = resolve_optimizer("adamw", {"lr": 6e-4})         # validated, with all defaults
    optimizer = build_optimizer("adamw", param_groups, **resolved)
    factor = build_schedule("cosine", total_steps, min_lr_ratio=0.1)
    group["lr"] = base_lr * factor(step)  # or torch's LambdaLR(optimizer, factor)

A new optimizer is one class in a file of its own and one row in OPTIMIZERS; a new schedule is one
function in schedules.py and one row in SCHEDULES. The contract tests take them from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from configs import Config, schema
from configs.validation import ConfigError, nearest
from optim import schedules, torch_optimizers
from optim.adam_mini import AdamMini
from optim.adamuon import AdaMuon
from optim.ademamix import AdEMAMix
from optim.adopt import ADOPT
from optim.apollo import APOLLO
from optim.aurora import Aurora
from optim.cautious import CautiousAdamW, CautiousLion
from optim.core import foreign, ownership
from optim.core.base import Optimizer, optimizer_state_bytes
from optim.core.hyperparameters import complete, in_updates
from optim.core.inside import Inside
from optim.core.logits import note_logits, watched_logits
from optim.core.products import matmul_precision
from optim.core.roles import (
    Roles,
    check_present,
    curves,
    of_earlier_version,
    refuse_moved,
    resolve_roles,
    schedule_conflict,
    with_roles,
)
from optim.core.schedule import Schedule, evaluated
from optim.dion import Dion
from optim.dion2 import Dion2
from optim.galore import GaLore
from optim.kl_soap import KLSOAP
from optim.lamb import LAMB
from optim.lars import LARS
from optim.lion import Lion
from optim.mars import MARS
from optim.muon import Muon
from optim.muonclip import MuonClip
from optim.muown import Muown
from optim.nadamw import NAdamW
from optim.normuon import NorMuon
from optim.prodigy import Prodigy
from optim.psgd_kron import PSGDKron
from optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from optim.scion import Scion
from optim.sgd_sai import SGDSaI, SGDSqrtN
from optim.shampoo import Shampoo
from optim.signum import Signum
from optim.soap import SOAP
from optim.soap_muon import SOAPMuon
from optim.sophia import SophiaG
from optim.width import by_width
from optim.wrappers import resolve_wrap, wrapped

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Inside",
    "Schedule",
    "build_optimizer",
    "build_schedule",
    "counted_in_updates",
    "curves",
    "matmul_precision",
    "note_logits",
    "optimizer_class",
    "optimizer_of",
    "optimizer_state_bytes",
    "resolve",
    "resolve_optimizer",
    "resolve_schedule",
    "schedule_conflict",
    "schedule_function",
    "schedule_of",
    "watched_logits",
]

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch_optimizers.SGD,
    "adam": torch_optimizers.Adam,
    "adamw": torch_optimizers.AdamW,
    "nadam": torch_optimizers.NAdam,
    "radam": torch_optimizers.RAdam,
    "adagrad": torch_optimizers.Adagrad,
    "rmsprop": torch_optimizers.RMSprop,
    "adafactor": torch_optimizers.Adafactor,
    "nadamw": NAdamW,
    "adopt": ADOPT,
    "ademamix": AdEMAMix,
    "mars": MARS,
    "adam_mini": AdamMini,
    "cautious_adamw": CautiousAdamW,
    "lion": Lion,
    "cautious_lion": CautiousLion,
    "signum": Signum,
    "lamb": LAMB,
    "lars": LARS,
    "sgd_sai": SGDSaI,
    "sgd_sqrtn": SGDSqrtN,
    "sophia_g": SophiaG,
    "prodigy": Prodigy,
    "schedule_free_adamw": ScheduleFreeAdamW,
    "schedule_free_sgd": ScheduleFreeSGD,
    "muon": Muon,
    "normuon": NorMuon,
    "adamuon": AdaMuon,
    "muonclip": MuonClip,
    "aurora": Aurora,
    "muown": Muown,
    "scion": Scion,
    "soap": SOAP,
    "soap_muon": SOAPMuon,
    "kl_soap": KLSOAP,
    "psgd_kron": PSGDKron,
    "shampoo": Shampoo,
    "galore": GaLore,
    "apollo": APOLLO,
    "dion": Dion,
    "dion2": Dion2,
}

SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": schedules.constant,
    "step": schedules.step,
    "multistep": schedules.multistep,
    "linear": schedules.linear,
    "linear_to_zero": schedules.linear_to_zero,
    "exponential": schedules.exponential,
    "cosine": schedules.cosine,
    "polynomial": schedules.polynomial,
    "rex": schedules.rex,
    "one_cycle": schedules.one_cycle,
    "cosine_warm_restarts": schedules.cosine_warm_restarts,
    "cyclic": schedules.cyclic,
    "wsd": schedules.wsd,
    "power_cool": schedules.power_cool,
    "fast_slow": schedules.fast_slow,
    "inverse_sqrt": schedules.inverse_sqrt,
    "noam": schedules.noam,
    "power": schedules.power,
    "cosine_inf": schedules.cosine_inf,
    "piecewise": schedules.piecewise,
}


# ---------------------------------------------------------------- optimizers


def resolve_optimizer(name: str, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """`hyperparameters` checked against the signature of `name`, with its defaults filled in.

    `name` is a key of OPTIMIZERS or the dotted path of a torch-style class. The result can be
    written as TOML; defaults that TOML cannot express (None, a callable) are left to the class.

    Raises:
        ConfigError: unknown name, unknown or missing key, wrong type; one line.
    """
    cls = optimizer_class(name)
    refuse_moved(cls, hyperparameters)
    return complete(cls, hyperparameters, "optimizer")


def build_optimizer(
    name: str,
    param_groups: Iterable[Any],
    *,
    roles: Roles | None = None,
    wrap: Mapping[str, Any] | None = None,
    total_steps: int | None = None,
    **hyperparameters: Any,
) -> Optimizer:
    """The optimizer `name` over `param_groups`.

    Args:
        name: a key of OPTIMIZERS, or a dotted path such as "torch.optim.Adamax".
        param_groups: dicts with "params"; a group's own value of a hyperparameter wins, and keys
            that the optimizer does not know ("names", "role") stay in the group. Or tensors.
        roles: what groups of a "role" have of their own, by role: "lr_ratio", a factor on lr, and
            hyperparameters of the class; they stand above the group's own values.
        wrap: what is wrapped around it, as the table [optimizer.wrap].
        total_steps: updates of the run, which hyperparameters may be fractions of.
        hyperparameters: the keyword arguments of the class; the rest take their defaults.

    Returns:
        An instance of the class, with the hooks of `optim.core.base.Optimizer`.

    Raises:
        ConfigError: as `resolve_optimizer`; or the class refuses the values; or one is a fraction
            of the run, or longer than it, and total_steps does not say how long that is. One line.
    """
    values = resolve_optimizer(name, hyperparameters)
    own = resolve_roles(name, optimizer_class(name), values, roles or {})
    counted = _in_updates(name, values, own, total_steps)
    return _construct(name, param_groups, *counted, wrap or {}, total_steps)


def _construct(
    name: str,
    param_groups: Iterable[Any],
    values: Mapping[str, Any],
    roles: Roles,
    wrap: Mapping[str, Any],
    total_steps: int | None,
) -> Optimizer:
    cls = foreign.with_hooks(optimizer_class(name))
    groups = with_roles(param_groups, values.get("lr"), roles)
    return wrapped(foreign.construct(name, cls, groups, dict(values)), wrap, total_steps)


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class `name`.

    Raises:
        ConfigError: there is none, or it is no torch-style optimizer; one line.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    if "." in name:
        return foreign.imported_class(name)
    raise ConfigError(
        f"unknown optimizer.name = '{name}'; {nearest(name, OPTIMIZERS)};"
        " another class is named by its dotted path, as torch.optim.Adamax"
    )


# ---------------------------------------------------------------- schedules


def resolve_schedule(name: str, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """`hyperparameters` checked against the signature of `name`, with its defaults filled in.

    `name` is a key of SCHEDULES or the dotted path of a function `(step, total_steps, *, ...)`.

    Raises:
        ConfigError: unknown name, unknown key, wrong type, out of its domain; one line.
    """
    return complete(schedule_function(name), hyperparameters, "schedule")


def build_schedule(name: str, total_steps: int, **hyperparameters: Any) -> Schedule:
    """The schedule `name` over `total_steps` updates: a function from step to factor in [0, 1].

    Raises:
        ConfigError: as `resolve_schedule`; also hyperparameters that do not fit the length of the
            run, such as a warm-up longer than it. One line.
    """
    if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1:
        raise ConfigError(f"total_steps = {total_steps!r}: should be an integer of at least 1")
    values = resolve_schedule(name, hyperparameters)
    return evaluated(name, schedule_function(name), total_steps, values)


def schedule_function(name: str) -> Callable[..., float]:
    """The function `name`.

    Raises:
        ConfigError: there is none, or it takes no (step, total_steps); one line.
    """
    if name in SCHEDULES:
        return SCHEDULES[name]
    if "." in name:
        return foreign.imported_function(name)
    raise ConfigError(
        f"unknown schedule.name = '{name}'; {nearest(name, SCHEDULES)};"
        " another function is named by its dotted path, as my_lab.my_schedule"
    )


# ---------------------------------------------------------------- of a configuration


def resolve(config: Config) -> Config:
    """The configuration with every hyperparameter of its optimizer and schedule.

    Raises:
        ConfigError: as `resolve_optimizer` and `resolve_schedule`; or the configuration was written
            with another version of a class or function from elsewhere; or schedules by role
            cannot serve the optimizer.
    """
    hooks = foreign.with_hooks(optimizer_class(config.optimizer.name))
    for role in config.schedule.roles:
        if not hooks.acts_on(role, "lr"):
            raise ConfigError(
                f"schedule.roles.{role}: '{config.optimizer.name}' has one rate for all"
                " parameters; leave it out"
            )
    return config.resolved(_whole_optimizer, _whole_schedule, foreign.version)


def _whole_optimizer(table: schema.Optimizer) -> dict[str, Any]:
    """The table [optimizer] with all its keys."""
    name, given = table.name, table.hyperparameters
    values = resolve_optimizer(name, given)
    roles = {role: own.model_dump() for role, own in table.roles.items()}
    own = resolve_roles(name, optimizer_class(name), values, roles)
    return {"name": name, **values, "roles": own, "wrap": resolve_wrap(table.wrap)}


def _whole_schedule(table: schema.Schedule) -> dict[str, Any]:
    """The table [schedule] with all its keys."""
    roles = {role: _whole_schedule_of(own) for role, own in table.roles.items()}
    return {**_whole_schedule_of(table), "roles": roles}


def _whole_schedule_of(table: schema.Named) -> dict[str, Any]:
    return {"name": table.name, **resolve_schedule(table.name, table.hyperparameters)}


def optimizer_of(
    config: Config, param_groups: Iterable[Any], rank: int = 0, world_size: int = 1
) -> Optimizer:
    """The optimizer of a resolved configuration over `param_groups`, as `build_optimizer`.

    Each group keeps its base rate as "initial_lr". `build_optimizer` leaves that key to torch's
    schedulers, which would not read a rate that is set later.
    With more than one rank they share its work if train.shard_optimizer says so.

    Raises:
        ConfigError: the class refuses the values, the run is too short for them, ranks cannot
            share its work, or muP has no rule for it; one line.
    """
    table, groups, setting = config.optimizer, list(param_groups), config.train.shard_optimizer
    values, roles = counted_in_updates(config)
    check_present("schedule", config.schedule.roles, groups)
    cls = optimizer_class(table.name)
    values = of_earlier_version(cls, values)  # whose weights are read
    roles = by_width(table, config.model, OPTIMIZERS, cls, roles)

    def build(some: Iterable[Any]) -> Optimizer:
        steps = config.train.total_steps
        optimizer = _construct(table.name, some, values, roles, table.wrap, steps)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    if setting is True and world_size > 1 and table.name not in OPTIMIZERS:
        ownership.rehearse(table.name, build, groups)
    return ownership.shared(build(groups), setting, rank, world_size)


def counted_in_updates(config: Config) -> tuple[dict[str, Any], Roles]:
    """Hyperparameters and settings by role of a resolved configuration, with updates of its run.

    Raises:
        ConfigError: a number of updates is longer than the run; one line.
    """
    table = config.optimizer
    roles = {role: own.model_dump() for role, own in table.roles.items()}
    return _in_updates(table.name, table.hyperparameters, roles, config.train.total_steps)


def _in_updates(
    name: str, values: Mapping[str, Any], roles: Roles, total_steps: int | None
) -> tuple[dict[str, Any], Roles]:
    cls = optimizer_class(name)
    own = {
        role: in_updates(cls, settings, total_steps, f"optimizer.roles.{role}")
        for role, settings in roles.items()
    }
    return in_updates(cls, values, total_steps, "optimizer"), own


def schedule_of(config: Config) -> Schedule:
    """The schedule of a resolved configuration over its `train.total_steps`.

    Raises:
        ConfigError: the hyperparameters do not fit the length of the run; one line.
    """

    def of(table: schema.Named) -> Schedule:
        function, steps = schedule_function(table.name), config.train.total_steps
        return evaluated(table.name, function, steps, table.hyperparameters)

    roles = {role: of(own) for role, own in config.schedule.roles.items()}
    return replace(of(config.schedule), roles=roles)
