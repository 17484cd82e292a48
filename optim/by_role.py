"""What a configuration means for GPT-2's parameters, without a model: by role, and in bytes."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from configs import Batch, Config, Model
from configs.loading import flat
from optim import optimizer_of, optimizer_state_bytes, schedule_of
from optim.core.around import Around
from optim.core.base import Optimizer, UpdateRule
from optim.core.ownership import Owned

UNKNOWN = 8  # bytes of state per parameter, as AdamW's
# GPT-2's parameters (train_gpt2.GPT.parameter_groups): in units of the width.
_MATRICES = {"attn.c_attn": (3, 1), "attn.c_proj": (1, 1), "mlp.c_fc": (4, 1), "mlp.c_proj": (1, 4)}


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
    """The optimizer of a resolved configuration over the parameters of one block and the rest.

    They have no data and take no memory.

    Raises:
        ConfigError: the optimizer, or what is wrapped around it, refuses its values; one line.
    """
    return optimizer_of(config, _groups(config.model, 1), 0, ranks)


def state_bytes(config: Config, rank: int = 0, world_size: int = 1) -> int:
    """Bytes of state that a rank will keep, from a step of the optimizer on tensors without data.

    Raises:
        ConfigError: as `check`.
    """
    layers = config.model.n_layer
    if world_size > 1:
        return _kept(optimizer_of(config, _groups(config.model, layers), rank, world_size))
    one, two = (_kept(optimizer_of(config, _groups(config.model, n))) for n in (1, 2))
    return one + (layers - 1) * (two - one)


def _kept(optimizer: Optimizer) -> int:
    """Bytes of state after a step; of a class that fails before it has some, as AdamW's.

    Where a decision needs data the step fails, and what a wrapper would keep is not counted.
    """
    row: Any = optimizer.row if isinstance(optimizer, Around) else optimizer
    row.compile = row.check_gradients = False
    steps, bare = optimizer.inner if isinstance(optimizer, Owned) else optimizer, 0
    for group in optimizer.param_groups:
        own = [p for p in group["params"] if p not in row.elsewhere]
        for p in own:
            p.grad = torch.empty_like(p)
        try:
            with warnings.catch_warnings(action="ignore"):
                steps.step()
        except Exception:  # a decision that needs data, or code from elsewhere
            bare += sum(UNKNOWN * p.numel() for p in own if p not in row.state)
        for p in own:
            p.grad = None
    return optimizer_state_bytes(optimizer) + bare


def state_to_come(config: Config, optimizer: Optimizer, rank: int, world_size: int) -> int:
    """Bytes that `optimizer`, of this configuration and rank, will take beside what it has."""
    return max(0, state_bytes(config, rank, world_size) - optimizer_state_bytes(optimizer))


def _groups(shape: Model, layers: int) -> list[dict[str, Any]]:
    """Parameters of GPT-2 with this number of blocks; vectors do not decay."""
    c = shape.n_embd
    embedding = {"wte.weight": (shape.vocab_size, c), "wpe.weight": (shape.block_size, c)}
    sizes: dict[str, dict[str, tuple[int, ...]]] = {"hidden": {}, "embedding": {**embedding}}
    sizes["vector"] = {"ln_f.weight": (c,), "ln_f.bias": (c,)}
    for block in (f"h.{i}" for i in range(layers)):
        for name, (rows, columns) in _MATRICES.items():
            sizes["hidden"][f"{block}.{name}.weight"] = rows * c, columns * c
            sizes["vector"][f"{block}.{name}.bias"] = (rows * c,)
        for name in ("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"):
            sizes["vector"][f"{block}.{name}"] = (c,)
    groups = []
    for role, named in sizes.items():
        params = [torch.nn.Parameter(torch.empty(n, device="meta")) for n in named.values()]
        group = {"role": role, "names": list(named), "params": params}
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
