"""Hyperball: matrices that keep their norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core.base import Optimizer
from optim.core.matrix import is_hidden
from optim.wrappers.base import At, Own, Wrapper, wide
from optim.wrappers.decay import Decay, estimates_its_step


class Hyperball(Wrapper):
    """Steps of a fixed relative size on a sphere, for hidden matrices, with any optimizer inside.

    Source: "Hyperball", arXiv:2606.16899; entries 4, 5 and 37 of modded-nanogpt's track 3.

        u = p_before - p_after of the optimizer's update;   R = norm(p) at its first update
        w <- p - lr * R * u / norm(u)
        p <- R * w / norm(w)                                          (Frobenius norms)

    The optimizer's own lr cancels, and so do its trust ratios and scales: lr is the relative size
    of a step. All other parameters take the optimizer's update as it is.
    Differs: R is kept from the first update, as in NVIDIA's Emerging-Optimizers; track 3 reads the
    norm again each time, which is the same unless another wrapper has moved the matrix off the
    sphere. With `split_qkv` a fused "c_attn" is three matrices on three spheres.
    Tuning: MuonH and AdamH: lr 0.018, linear to 0 over the whole run; the optimizer's own rate for
    embeddings and vectors then is a `lr_ratio` of their roles. weight_decay of hidden matrices must
    be 0, or that of the wrapper "decay" with cautious = true, which turns the direction of u.
    State: a number per matrix; memory for a copy of the matrices, which is no state.
    """

    def __init__(self, total_steps: int | None, *, split_qkv: bool = True) -> None:
        self.split_qkv = split_qkv

    def refuse(self, row: Optimizer, others: Mapping[str, Wrapper]) -> str | None:
        groups = row.param_groups
        hidden = [g for g in groups if any(is_hidden(p, g) for p in g["params"])]
        if not hidden:
            return "has no hidden matrix, which is all that it acts on"
        if estimates_its_step(row):
            return "estimates a step size, which cancels here"
        if row.bounds_norms:
            return "shrinks queries and keys to bound their logits, which fixed norms would undo"
        decay = others.get("decay")
        cautious = isinstance(decay, Decay) and decay.cautious
        if not cautious and any(g.get("weight_decay") for g in hidden):
            return (
                "decays its hidden matrices, whose norm is fixed here: set"
                " optimizer.roles.hidden.weight_decay = 0, or optimizer.wrap.decay.cautious = true"
            )
        return None

    @classmethod
    def keeps_width_rule(cls, values: Mapping[str, Any]) -> bool:
        return False  # lr is the relative size of a step here, whatever the optimizer's is

    def needs_old(self, p: Tensor, own: Own, at: At) -> bool:
        return is_hidden(p, at.group)

    def after(self, p: Tensor, old: Tensor | None, own: Own, at: At) -> None:
        if old is None or not is_hidden(p, at.group):
            return
        before, after = self._matrices(old, at.name), self._matrices(wide(p), at.name)
        if "norms" not in own:
            own["norms"] = torch.stack([torch.linalg.matrix_norm(w) for w in before])
        if not at.lr:
            return
        norms = own["norms"].unbind()
        for place, w, new, r in zip(self._matrices(p, at.name), before, after, norms, strict=True):
            minus_u = new.sub_(w)  # in place: a new tensor of this size costs more than the rest
            size = torch.linalg.matrix_norm(minus_u)
            moved = minus_u.mul_(at.lr * r / torch.where(size > 0, size, 1)).add_(w)
            length = torch.linalg.matrix_norm(moved)
            place.copy_(moved.mul_(r / torch.where(length > 0, length, 1)))

    def _matrices(self, t: Tensor, name: str) -> tuple[Tensor, ...]:
        fused = name.removesuffix(".weight").rpartition(".")[2] == "c_attn"
        return t.chunk(3) if self.split_qkv and fused and len(t) % 3 == 0 else (t,)
