"""KL-SOAP and KL-Shampoo: second moments of the two sides that are estimated together."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from optim.core.batch import Batch, Params, Values
from optim.core.eigenbasis import first_basis, rotated, rotated_back
from optim.core.hyperparameters import Beta, Betas, Count, NonNegative, Positive
from optim.core.matrix import MatmulDtype, MatrixRule


class KLSOAP(MatrixRule):
    """SOAP or Shampoo whose second moment of one side is measured after whitening the other side.

    Source: Lin et al., "Understanding and Improving Shampoo and SOAP via Kullback-Leibler
    Minimization", arXiv:2509.03378; first step, order and defaults of the authors' code
    (yorkerlin/KL-Methods). For an m x n matrix, with "/" and roots taken element by element:

        t = 1:  L = (1 - shampoo_beta) / n * g g^T,  R = (1 - shampoo_beta) / m * g^T g
                Q_L, Q_R = eigenvectors of L, R;  l, r = initial_eigenvalue;  p is not moved
        later:
        y = Q_L^T g Q_R
        variant "soap":     m <- beta1 * m + (1 - beta1) * y
                            v <- beta2 * v + (1 - beta2) * y^2
                            u = Q_L (m / (sqrt(v) + eps)) Q_R^T
        variant "shampoo":  m <- beta1 * m + (1 - beta1) * g
                            u = Q_L ((Q_L^T m Q_R) / (sqrt(l r^T) + eps)) Q_R^T
        L <- shampoo_beta * L + (1 - shampoo_beta) / n * g (Q_R diag(1/r) Q_R^T) g^T
        R <- shampoo_beta * R + (1 - shampoo_beta) / m * g^T (Q_L diag(1/l) Q_L^T) g
        l <- shampoo_beta * l + (1 - shampoo_beta) * mean(y^2 / r^T over each row)
        r <- shampoo_beta * r + (1 - shampoo_beta) * mean(y^2 / l over each column)
        l, r <- at least 1 / c^2,  c = max(10, min(length, max_inverse_root))
        every precondition_frequency steps after the first:  Q_L <- qr(L Q_L),  Q_R <- qr(R Q_R);
            in variant "soap" m is carried over into the new bases
        p <- p - lr * u
        p <- p * (1 - lr * weight_decay)

    All updates of L, R, l and r use the bases and eigenvalues of before. Other parameters
    (embeddings, head, vectors): AdamW with betas, eps and weight_decay.
    Differs: the authors' code computes in bfloat16 by default, this in at least float32. It keeps
    the inverse roots of l and r, this l and r. NVIDIA's Emerging-Optimizers, which shares the idea,
    moves from the first step on and corrects for the zero start; the record of modded-nanogpt's
    track 3 leaves 1 - shampoo_beta out of the first L and R.
    Tuning: lr as soap's. m and v start at 0 without correction, which makes the first twenty steps
    0.7 to 1.5 times as long as Adam's at the default betas. With hyperball, lr is about 0.018.
    In a matrix that is not square, the first gradient does not span the longer side, and the basis
    of the rest is arbitrary: it differs from one machine to the next. A QR costs many times as much
    as the rest of a step.
    State: exp_avg, exp_avg_sq ("soap" only), two m x m and two n x n matrices, m + n eigenvalues,
    in at least float32: 8 bytes per parameter and 8 (m^2 + n^2) / (m n) more for a matrix (27.1 for
    GPT-2 124M).
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-4,
        betas: Betas = (0.9, 0.98),
        shampoo_beta: Beta = 0.98,
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.01,
        variant: Literal["soap", "shampoo"] = "soap",
        precondition_frequency: Count = 10,
        initial_eigenvalue: Positive = 0.1,
        max_inverse_root: Positive = 4000.0,
        split_qkv: bool = True,
        matmul_dtype: MatmulDtype = "tf32",
    ) -> None:
        super().__init__(params, locals())

    def matrix_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """Moments, and for each side its second moment, basis and eigenvalues."""
        precision = torch.promote_types(p.dtype, torch.float32)
        names = ("exp_avg", "exp_avg_sq") if h["variant"] == "soap" else ("exp_avg",)
        state = {name: torch.zeros_like(p, dtype=precision) for name in names}
        for side, n in zip(("left", "right"), p.shape, strict=True):
            square = torch.zeros(n, n, dtype=precision, device=p.device)
            values = torch.full((n,), h["initial_eigenvalue"], dtype=precision, device=p.device)
            state.update({side: square, f"{side}_basis": square.clone(), f"{side}_values": values})
        return state

    def matrix_step(self, batch: Batch, c: Values) -> None:
        """Matrices of equal shape together."""
        h = batch.h
        for p, g, state in batch.stacks():
            g = g.to(state["exp_avg"].dtype)
            if batch.step == 1:
                _begin(g, state, h["shampoo_beta"])
                continue
            u = _direction(g, state, h)
            if (batch.step - 1) % h["precondition_frequency"] == 0:
                _turn(state, h["variant"])
            p.sub_((c["lr"] * u).to(p.dtype)).mul_(c["decay"])


def _begin(g: Tensor, state: dict[str, Tensor], beta: float) -> None:
    m, n = g.shape[-2:]
    for side, moment in (("left", g @ g.mT / n), ("right", g.mT @ g / m)):
        state[side].copy_((1 - beta) * moment)
        state[f"{side}_basis"].copy_(first_basis(state[side]))


def _direction(g: Tensor, state: dict[str, Tensor], h: Values) -> Tensor:
    """u in the bases of before; moves all of the state but the bases."""
    (beta1, beta2), m = h["betas"], state["exp_avg"]
    left, right = state["left_basis"], state["right_basis"]
    rows, columns = state["left_values"].unsqueeze(-1), state["right_values"].unsqueeze(-2)
    from_left = left.mT @ g
    y = from_left @ right
    if h["variant"] == "soap":
        m.lerp_(y, 1 - beta1)
        v = state["exp_avg_sq"].lerp_(y.square(), 1 - beta2)
        u = m / (v.sqrt() + h["eps"])
    else:
        m.lerp_(g, 1 - beta1)
        u = rotated(m, left, right) / ((rows * columns).sqrt() + h["eps"])
    u = rotated_back(u, left, right)
    whitened, mean = (g @ right) / columns.sqrt(), (y.square() / columns).mean(-1)
    other, other_mean = from_left.mT / rows.mT.sqrt(), (y.square() / rows).mean(-2)
    _average(state, "left", whitened, mean, h)
    _average(state, "right", other, other_mean, h)
    return u


def _average(state: dict[str, Tensor], side: str, half: Tensor, mean: Tensor, h: Values) -> None:
    """Second moment and eigenvalues of a side; `half` is g with the other side whitened."""
    weight, length = 1 - h["shampoo_beta"], half.size(-1)
    state[side].lerp_(half @ half.mT / length, weight)
    least = max(10.0, min(mean.size(-1), h["max_inverse_root"])) ** -2
    state[f"{side}_values"].lerp_(mean, weight).clamp_(min=least)


def _turn(state: dict[str, Tensor], variant: str) -> None:
    """One step of orthogonal iteration on each side; m of variant "soap" is carried over."""
    old = state["left_basis"].clone(), state["right_basis"].clone()
    for side in ("left", "right"):
        basis = state[f"{side}_basis"]
        basis.copy_(torch.linalg.qr(state[side] @ basis).Q)
    if variant == "soap":
        m = state["exp_avg"]
        new = state["left_basis"], state["right_basis"]
        m.copy_(rotated(rotated_back(m, *old), *new))
