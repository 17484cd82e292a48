"""Muown: Muon on the directions of a matrix's rows, Adam on their lengths."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optim.core import adamw
from optim.core.batch import Batch, Params, Values
from optim.core.hyperparameters import Beta, Betas, NonNegative
from optim.core.matrix import MatrixRule
from optim.core.orthogonal import Method, orthogonalised
from optim.muon import averaged

_SMALLEST = 1e-12  # of a row's length: a row of zeros has a direction from its first update on


class Muown(MatrixRule):
    """Weight normalisation inside the optimizer: rows are g_i V_i / ||V_i||, and both move.

    Source: Lion, Hübler, Li, Orvieto & He, "Muown: Row-Norm Control for Muon Optimization",
    arXiv:2605.10797; kcc-lion/muown, optim/muown.py.

        g = c = ||p_i|| of each row i           (before the first update)
        u = p / g,  V = c u                     (||V_i|| = c_i)
        dg = sum over each row of G u           (the gradient is G)
        dV = (g / c) (G - u dg)
        b <- momentum * b + (1 - momentum) * dV
        w = momentum * b + (1 - momentum) * dV  if nesterov  else b
        V <- V - lr * 0.2 * sqrt(max(m, n)) * orthogonalised(w)
        c <- ||V_i||
        g <- g - lr * Adam(dg; betas, eps)
        p <- p + (g V / c - p) - lr * weight_decay * p
        g <- ||p_i||                            (with decay)

    Other parameters (embeddings, head, vectors): AdamW with the same betas, eps and weight_decay.
    Differs: b is an average where the code has a sum; the direction is the same. A row of zeros
    counts as 1e-12 long, so that it can begin to move; the code divides by 0. V is not kept: it is
    rebuilt from p, so nothing else may move the weights between two steps.
    Tuning: AdamW's lr, and weight_decay 0, which is the published setting: the lengths of rows are
    learned instead.
    State: momentum_buffer: 4 bytes per parameter of a hidden matrix, and 16 bytes per row:
    row_length, direction_length, length_exp_avg, length_exp_avg_sq; exp_avg, exp_avg_sq: 8 bytes of
    the others.
    """

    keeps_weights = True

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        momentum: Beta = 0.95,
        nesterov: bool = True,
        orthogonalisation: Method = "newton_schulz",
        split_qkv: bool = True,
        weight_decay: NonNegative = 0.0,
        betas: Betas = (0.9, 0.95),
        eps: NonNegative = 1e-8,
    ) -> None:
        super().__init__(params, locals())

    def matrix_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """The momentum, and for each row g, c and the moments of g's gradient."""
        dtype = torch.promote_types(p.dtype, torch.float32)
        lengths = _row_lengths(p.to(dtype))
        return {
            "momentum_buffer": torch.zeros_like(p, dtype=dtype),
            "row_length": lengths,
            "direction_length": lengths.clone(),
            "length_exp_avg": torch.zeros_like(lengths),
            "length_exp_avg_sq": torch.zeros_like(lengths),
        }

    def matrix_step(self, batch: Batch, c: Values) -> None:
        h, s, lr = batch.h, batch.state, c["lr"]
        units, along, across = [], [], []
        for p, grad, g, length in zip(
            batch.params, batch.grads, s["row_length"], s["direction_length"], strict=True
        ):
            grad = grad.to(g.dtype)
            u = p.to(g.dtype) / torch.where(g.abs() < _SMALLEST, _SMALLEST, g)
            d = (grad * u).sum(1, keepdim=True)
            units.append(u)
            along.append(d)
            across.append((g / length) * (grad - u * d))
        w = averaged(s["momentum_buffer"], across, h)
        directions = orthogonalised(w, h["orthogonalisation"])
        moments = {name: s[f"length_{name}"] for name in adamw.BUFFERS}
        coefficients = adamw.coefficients({**h, "weight_decay": 0.0}, batch.step)
        adamw.update(s["row_length"], along, moments, h, coefficients)
        if lr == 0:  # taking p apart and together again would round it
            return
        for p, u, o, g, length in zip(
            batch.params, units, directions, s["row_length"], s["direction_length"], strict=True
        ):
            v = (u * length).sub_(o, alpha=lr * 0.2 * math.sqrt(max(p.shape)))
            length.copy_(_row_lengths(v))
            new = v * (g / length)
            if h["weight_decay"]:
                new.sub_(p, alpha=lr * h["weight_decay"])
                g.copy_(_row_lengths(new))
            p.copy_(new)


def _row_lengths(x: Tensor) -> Tensor:
    """(m, n) -> (m, 1), at least 1e-12."""
    return torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp(min=_SMALLEST)
