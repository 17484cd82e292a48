"""Shampoo, with averages and with the step sizes of Adam."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from optim.hyperparameters import Betas, Count, NonNegative
from optim.matrix import MatrixRule, at_least_float32, eigen
from optim.one_pass import Batch


class Shampoo(MatrixRule):
    """Momentum divided on both sides by a root of the gradients' second moments, as long as Adam's.

    Source: Gupta, Koren & Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization",
    arXiv:1802.09568, Algorithm 1; averages, grafting and stale roots: Shi et al., "A Distributed
    Data-Parallel PyTorch Implementation of the Distributed Shampoo Optimizer", arXiv:2309.06497.

        L <- beta2 * L + (1 - beta2) * g g^T,  R <- beta2 * R + (1 - beta2) * g^T g
        m <- beta1 * m + (1 - beta1) * g,      v <- beta2 * v + (1 - beta2) * g^2
        A = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)                (Adam's step)
        U = (L / (1 - beta2^t) + epsilon I)^(-1/4) (m / (1 - beta1^t))
            (R / (1 - beta2^t) + epsilon I)^(-1/4)
        U <- U * ||A||_F / ||U||_F                                    (grafting "adam")
        U <- A  before start_preconditioning_step
        p <- p * (1 - lr * weight_decay)
        p <- p - lr * U

    The roots are taken at start_preconditioning_step and every precondition_frequency steps. A side
    longer than max_precondition_dim has none, and the other one's exponent is then -1/2. Other
    parameters (embeddings, head, vectors): AdamW with lr * adamw_lr_ratio and the same betas, eps
    and weight_decay.
    Differs: the first paper sums where this averages, and has no momentum, grafting or stale roots.
    The second one's code cuts long sides into blocks, and joins small dimensions unless told not
    to. Eigenvalues below the rounding error of the largest are raised to it, in addition to
    epsilon: with a smaller epsilon they are noise, and their root the largest of all.
    Tuning: with grafting, AdamW's lr and weight_decay; without, the scale is the gradient's own.
    The authors advise epsilon 1e-12 to 1e-8. The steps that take roots take many times as long.
    State: exp_avg, exp_avg_sq, and two m x m and two n x n matrices, in at least float32: 8 bytes
    per parameter and 8 (m^2 + n^2) / (m n) more for a matrix (28.9 for GPT-2 124M).
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: NonNegative = 1e-3,
        betas: Betas = (0.9, 0.95),
        eps: NonNegative = 1e-8,
        epsilon: NonNegative = 1e-12,
        weight_decay: NonNegative = 0.0,
        grafting: Literal["adam", "none"] = "adam",
        precondition_frequency: Count = 10,
        start_preconditioning_step: Count = 10,
        max_precondition_dim: Count = 8192,
        adamw_lr_ratio: NonNegative = 1.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "epsilon": epsilon,
            "weight_decay": weight_decay,
            "grafting": grafting,
            "precondition_frequency": precondition_frequency,
            "start_preconditioning_step": start_preconditioning_step,
            "max_precondition_dim": max_precondition_dim,
            "adamw_lr_ratio": adamw_lr_ratio,
        }
        super().__init__(params, defaults)

    def matrix_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Moments, and for each side its second moment and root (empty if it is too long)."""
        state = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        for side, n in zip(("left", "right"), p.shape, strict=True):
            n = n if n <= group["max_precondition_dim"] else 0
            square = torch.zeros(n, n, dtype=at_least_float32(p.dtype), device=p.device)
            state.update({side: square, f"{side}_root": square.clone()})
        return state

    def matrix_step(self, batch: Batch) -> None:
        """Matrix by matrix: each has work enough for a machine."""
        group, step = batch.group, batch.step
        start, every = group["start_preconditioning_step"], group["precondition_frequency"]
        takes_roots = step == start or (step > start and step % every == 0)
        for p, g, state in batch.items():
            u = _direction(g.to(at_least_float32(g.dtype)), state, group, step, takes_roots)
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(u.to(p.dtype), alpha=-group["lr"])


def _direction(
    g: Tensor, state: dict[str, Tensor], group: Mapping[str, Any], step: int, takes_roots: bool
) -> Tensor:
    (beta1, beta2), m, v = group["betas"], state["exp_avg"], state["exp_avg_sq"]
    sides = [side for side in ("left", "right") if state[side].numel()]
    for side in sides:
        state[side].lerp_(g @ g.mT if side == "left" else g.mT @ g, 1 - beta2)
    m.lerp_(g.to(m.dtype), 1 - beta1)
    v.lerp_(g.square().to(v.dtype), 1 - beta2)
    if takes_roots:
        for side in sides:
            moment = state[side] / (1 - beta2**step)
            root = _inverse_root(moment, group["epsilon"], 2 * len(sides))
            state[f"{side}_root"].copy_(root)
    mean = m.to(g.dtype) / (1 - beta1**step)
    adam = mean / ((v.to(g.dtype) / (1 - beta2**step)).sqrt() + group["eps"])
    if step < group["start_preconditioning_step"]:
        return adam
    u = mean
    if "left" in sides:
        u = state["left_root"] @ u
    if "right" in sides:
        u = u @ state["right_root"]
    if group["grafting"] == "none":
        return u
    norm = u.norm()
    return u * torch.where(norm > 0, adam.norm() / norm, 0.0)


def _inverse_root(moment: Tensor, epsilon: float, order: int) -> Tensor:
    """(moment + epsilon I)^(-1 / order) of a symmetric matrix without negative eigenvalues."""
    values, vectors = eigen(moment)
    rounding = torch.finfo(values.dtype).eps * values[-1].clamp(min=torch.finfo(values.dtype).tiny)
    values = torch.maximum(values, rounding) + epsilon
    return (vectors * values ** (-1 / order)) @ vectors.mT
