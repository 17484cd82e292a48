"""Shampoo with moving averages and the step length of Adam."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from optim.core import adamw
from optim.core.batch import Batch, Params, Values
from optim.core.hyperparameters import Betas, Count, NonNegative
from optim.core.matrix import MatmulDtype, MatrixRule, eigen


class Shampoo(MatrixRule):
    """Momentum divided on both sides by a root of second moments, with the length of Adam's step.

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

    The roots are taken at start_preconditioning_step and every precondition_frequency steps. A
    matrix with a side longer than max_precondition_dim is cut into blocks of that many rows or
    columns (the last may have fewer), and each is updated as a matrix of its own, grafting
    included. Other parameters (embeddings, head, vectors): AdamW with betas, eps and weight_decay.
    `split_qkv` as in muon.
    Differs: the first paper sums where this averages, and has no momentum, grafting, stale roots or
    blocks. The second one's code joins small dimensions by default. Eigenvalues below the rounding
    error of the largest are raised to it, in addition to epsilon: otherwise, with a smaller
    epsilon, they are noise, and their roots are the largest of all.
    Tuning: with grafting, AdamW's lr and weight_decay; without, the scale is the gradient's own.
    The authors advise epsilon 1e-12 to 1e-8, and the longest sides that memory and time allow. The
    steps that take roots take many times as long; a root costs the cube of its side.
    State: exp_avg, exp_avg_sq, and for each m x n block two m x m and two n x n matrices, in at
    least float32: 8 bytes per parameter and 8 (m^2 + n^2) / (m n) more for a matrix (GPT-2 124M:
    27.1, with blocks of 1024 19.2).
    """

    buffers = adamw.BUFFERS

    def __init__(
        self,
        params: Params,
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
        split_qkv: bool = True,
        matmul_dtype: MatmulDtype = "float32",
    ) -> None:
        super().__init__(params, locals())

    def matrix_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """Moments; second moments and roots of the sides of all blocks, one after the other."""
        state = super().matrix_state(p, h)
        blocks, precision = _blocks(p, h), torch.promote_types(p.dtype, torch.float32)
        for dim, side in enumerate(("left", "right")):
            numbers = sum(block.size(dim) ** 2 for block in blocks)
            squares = torch.zeros(numbers, dtype=precision, device=p.device)
            state.update({side: squares, f"{side}_root": squares.clone()})
        return state

    def matrix_step(self, batch: Batch, c: Values) -> None:
        """Block by block, matrices of equal shape together."""
        h, step = batch.h, batch.step
        start, every = h["start_preconditioning_step"], h["precondition_frequency"]
        takes_roots = step == start or (step > start and step % every == 0)
        for p, g, state in batch.stacks():
            blocks = _blocks(p, h)
            parts = {name: _blocks(state[name], h) for name in ("exp_avg", "exp_avg_sq")}
            for dim, side in enumerate(("left", "right")):
                for name in (side, f"{side}_root"):
                    parts[name] = _squares(state[name], [block.size(dim - 2) for block in blocks])
            for i, (block, grad) in enumerate(zip(blocks, _blocks(g, h), strict=True)):
                own = {name: values[i] for name, values in parts.items()}
                grad = grad.to(torch.promote_types(g.dtype, torch.float32))
                u = _direction(grad, own, h, step, takes_roots)
                block.mul_(c["decay"])
                block.sub_((c["lr"] * u).to(p.dtype))


def _blocks(matrix: Tensor, h: Values) -> list[Tensor]:
    """Views of its blocks, row by row."""
    longest = h["max_precondition_dim"]
    return [block for rows in matrix.split(longest, -2) for block in rows.split(longest, -1)]


def _squares(numbers: Tensor, sides: list[int]) -> list[Tensor]:
    """Views of what `matrix_state` keeps in one vector: square matrices with these sides."""
    parts = numbers.split([n * n for n in sides], -1)
    return [part.unflatten(-1, (n, n)) for part, n in zip(parts, sides, strict=True)]


def _direction(
    g: Tensor, state: dict[str, Tensor], h: Values, step: int, takes_roots: bool
) -> Tensor:
    (beta1, beta2), m, v = h["betas"], state["exp_avg"], state["exp_avg_sq"]
    state["left"].lerp_(g @ g.mT, 1 - beta2)
    state["right"].lerp_(g.mT @ g, 1 - beta2)
    m.lerp_(g.to(m.dtype), 1 - beta1)
    v.lerp_(g.square().to(v.dtype), 1 - beta2)
    if takes_roots:
        for side in ("left", "right"):
            root = _inverse_root(state[side] / (1 - beta2**step), h["epsilon"])
            state[f"{side}_root"].copy_(root)
    mean = m.to(g.dtype) / (1 - beta1**step)
    adam = mean / ((v.to(g.dtype) / (1 - beta2**step)).sqrt() + h["eps"])
    if step < h["start_preconditioning_step"]:
        return adam
    u = state["left_root"] @ mean @ state["right_root"]
    if h["grafting"] == "none":
        return u
    norm, length = (torch.linalg.matrix_norm(x, keepdim=True) for x in (u, adam))
    return u * torch.where(norm > 0, length / norm, 0.0)


def _inverse_root(moment: Tensor, epsilon: float) -> Tensor:
    """(moment + epsilon I)^(-1/4) of a symmetric matrix without negative eigenvalues."""
    values, vectors = eigen(moment)
    numbers = torch.finfo(values.dtype)
    rounding = numbers.eps * values[..., -1:].clamp(min=numbers.tiny)
    values = torch.maximum(values, rounding) + epsilon
    return (vectors * values.unsqueeze(-2) ** (-1 / 4)) @ vectors.mT
