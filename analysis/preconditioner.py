"""By what an optimizer multiplies the gradient, read from its state; and where steps get unstable.

On a quadratic with Hessian H a step p <- p - lr D b, with b a running sum of gradients, is stable
while lr times the largest eigenvalue of D H is below a limit, which is 2 without momentum.

Source: Cohen et al., "Gradient Descent on Neural Networks Typically Occurs at the Edge of
Stability", arXiv:2103.00065, for momentum; Cohen et al., "Adaptive Gradient Methods at
the Edge of Stability", arXiv:2207.14484, for Adam, whose limit is (2 + 2 beta1) / (1 - beta1).
Weight decay is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

import optim
from analysis.trained import Origin
from optim import torch_optimizers
from optim.adam_mini import AdamMini, by_row
from optim.core.around import Around
from optim.nadamw import NAdamW
from optim.sgd_sai import SGDSaI, SGDSqrtN
from optim.wrappers.wrapped import Wrapped
from train_gpt2 import GPT

Row: TypeAlias = torch.optim.Optimizer
Group: TypeAlias = Mapping[str, Any]  # of parameters


@dataclass(frozen=True)
class Preconditioner:
    """The diagonal of D over all weights, and what it is compared with.

    factors: where rates of roles differ, each times the ratio of its rate to lr. lr: of hidden
    matrices in the last update. limit: of lr times the largest eigenvalue of D H.
    """

    factors: Tensor
    lr: float
    limit: float


def preconditioner(origin: Origin, model: GPT) -> Preconditioner | str:
    """That of a run at its checkpoint; or why it is not known, in a few words."""
    optimizer = optim.optimizer_of(origin.config, model.parameter_groups())
    row = optimizer.row if isinstance(optimizer, Around) else optimizer
    name = origin.config.optimizer.name
    parts = optimizer.parts if isinstance(optimizer, Wrapped) else {}
    if wrapped := [key for key, part in parts.items() if part.moves or part.judged]:
        return f"optimizer.wrap.{wrapped[0]} changes what {name} does, or which weights count"
    if type(row) not in _DIAGONALS:
        return f"{name} does not multiply each element of the gradient by a number that it keeps"
    try:
        optimizer.load_state_dict(origin.saved.optimizer)
    except (ValueError, KeyError) as error:
        return f"the state of {name} is of another version ({error})"
    groups = row.param_groups
    lr = float(groups[0]["lr"])
    limits = {_limit(row, group) for group in groups}
    if len(limits) > 1:
        return "the momentum of roles differs"
    if not lr:
        return "the last update had a learning rate of 0"
    found, diagonal = {}, _DIAGONALS[type(row)]
    for group in groups:
        for p in group["params"]:
            if p not in row.state and diagonal is not _sgd:
                return f"{name} has made no update"
            found[p] = (diagonal(p, row, group) * (group["lr"] / lr)).expand_as(p).reshape(-1)
    return Preconditioner(torch.cat([found[p] for p in model.parameters()]), lr, limits.pop())


def _limit(row: Row, group: Group) -> float:
    """The limit of lr times an eigenvalue, from the momentum of a group."""
    if "betas" in group:
        beta, averaged = group["betas"][0], True
    else:
        beta, averaged = group.get("momentum", 0.0), isinstance(row, SGDSaI | SGDSqrtN)
    limit = 2 + 2 * beta
    if group.get("nesterov") or isinstance(row, NAdamW):
        limit /= 1 + 2 * beta
    return limit / (1 - beta) if averaged else limit


# ------------------------------------------------------------------------- diagonals, by the class


def _sgd(p: Tensor, row: Row, group: Group) -> Tensor:
    return torch.full_like(p, 1 - group["dampening"] if group["momentum"] else 1.0)


def _adam(p: Tensor, row: Row, group: Group) -> Tensor:
    state = row.state[p]
    v = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
    corrected = v / (1 - group["betas"][1] ** float(state["step"]))
    return 1 / (corrected.sqrt() + group["eps"])


def _adam_mini(p: Tensor, row: Row, group: Group) -> Tensor:
    blocks = _adam(p, row, group)
    if blocks.shape == p.shape:
        return blocks
    kind = "qkv" if p.ndim > 1 and len(blocks) < len(p) else "rows"
    return by_row(blocks, p, {**group, "kind": kind}).view(-1, *[1] * (p.ndim - 1))


def _rmsprop(p: Tensor, row: Row, group: Group) -> Tensor:
    state = row.state[p]
    v = state["square_avg"]
    v = v - state["grad_avg"] ** 2 if group["centered"] else v
    return 1 / (v.sqrt() + group["eps"])


def _adagrad(p: Tensor, row: Row, group: Group) -> Tensor:
    state = row.state[p]
    decayed = 1 + (float(state["step"]) - 1) * group["lr_decay"]
    return 1 / (decayed * (state["sum"].sqrt() + group["eps"]))


def _scaled_sgd(p: Tensor, row: Row, group: Group) -> Tensor:
    largest = max(float(state["scale"]) for state in row.state.values())
    return row.state[p]["scale"] / (largest if group["normalise"] else 1.0) * torch.ones_like(p)


_DIAGONALS: dict[type, Callable[[Tensor, Row, Group], Tensor]] = {
    torch_optimizers.SGD: _sgd,
    torch_optimizers.Adam: _adam,
    torch_optimizers.AdamW: _adam,
    NAdamW: _adam,
    AdamMini: _adam_mini,
    torch_optimizers.RMSprop: _rmsprop,
    torch_optimizers.Adagrad: _adagrad,
    SGDSaI: _scaled_sgd,
    SGDSqrtN: _scaled_sgd,
}
