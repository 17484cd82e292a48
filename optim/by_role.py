"""What the parameters of each role get from a configuration: rate, decay, betas, step, schedule."""

from __future__ import annotations

from typing import Any

import torch

from configs import Batch, Config
from configs.loading import flat
from optim import optimizer_of, schedule_of
from optim.core.base import Optimizer, UpdateRule

# Stand-ins for GPT-2's parameters (train_gpt2.GPT.parameter_groups): vectors do not decay.
_NAMES = {
    "hidden": ["h.0.attn.c_attn.weight", "h.0.mlp.c_fc.weight"],
    "embedding": ["wte.weight", "wpe.weight"],
    "vector": ["h.0.attn.c_attn.bias", "ln_f.weight"],
}


def lines(config: Config) -> list[str]:
    """One line for each role of a resolved configuration.

    Raises:
        ConfigError: the optimizer or the schedule refuses the configuration; one line.
    """
    inside = config.optimizer.model_copy(update={"wrap": {}})
    optimizer = _rehearsed(config.model_copy(update={"optimizer": inside}))
    schedule, rows = schedule_of(config), []
    for group in optimizer.param_groups:
        role, own = group["role"], schedule.of(group["role"])
        ratio = group["lr"] / optimizer.defaults["lr"] if optimizer.defaults["lr"] else 1.0
        rate = f"lr {group['lr']:.4g}" + (f" (x{ratio:.4g})" if ratio != 1 else "")
        keys = [key for key in ("weight_decay", "betas", "momentum") if key in group]
        shown = [f"{key} {_text(group[key])}" for key in keys if _acts(optimizer, role, key)]
        row = [f"{role:<10}{_step(optimizer, role)}", rate, *shown, f"schedule {own.name}"]
        given = config.optimizer.roles.get(role)
        extra = flat(given.model_dump(exclude={"lr_ratio", *keys}) if given else {})
        rows.append("; ".join([*row, *(f"{k} {_text(v)}" for k, v in extra.items())]))
    if config.optimizer.wrap:
        rows.append(f"around it: {', '.join(config.optimizer.wrap)}")
    return rows


def check(config: Config, ranks: int) -> None:
    """Whether the parts of a resolved configuration fit each other; needs no data and no device.

    ranks: that share a batch; 0 if nobody knows how many.

    Raises:
        ConfigError: they do not; one line.
    """
    schedule_of(config)
    _rehearsed(config, max(1, ranks))
    if ranks:
        Batch.divide(config, ranks)


def _rehearsed(config: Config, ranks: int = 1) -> Optimizer:
    """The optimizer of a resolved configuration over stand-ins, which take no memory.

    Raises:
        ConfigError: the optimizer, or what is wrapped around it, refuses its values; one line.
    """
    return optimizer_of(config, _groups(config.model.n_embd), 0, ranks)


def _groups(width: int) -> list[dict[str, Any]]:
    groups = []
    for role, names in _NAMES.items():
        shapes = [(width,) if role == "vector" else (width, width) for _ in names]
        if role == "hidden":
            shapes[0] = (3 * width, width)
        params = [torch.nn.Parameter(torch.zeros(shape, device="meta")) for shape in shapes]
        group = {"role": role, "names": names, "params": params}
        groups.append({**group, "weight_decay": 0.0} if role == "vector" else group)
    return groups


def _acts(optimizer: Optimizer, role: str, key: str) -> bool:
    return key in optimizer.defaults and optimizer.acts_on(role, key)


def _step(optimizer: Optimizer, role: str) -> str:
    """Which step the parameters take; in brackets the kinds that an own rule tells apart."""
    own = f"{type(optimizer).__name__}'s step"
    if not isinstance(optimizer, UpdateRule):
        return own
    kinds = [kind for kind_role, kind in optimizer.kinds() if kind_role == role]
    if kinds == ["adamw"]:
        return "AdamW's step"
    named = ", ".join("Q, K, V apart" if kind == "qkv" else kind for kind in kinds if kind)
    return f"{own} ({named})" if named else own


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
