"""SOAP-Muon: momentum divided by its root mean square in a turning eigenbasis, orthogonalised."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from optim.core.batch import Batch, Params, Values
from optim.core.eigenbasis import first_basis, rotated, rotated_back, turn
from optim.core.hyperparameters import Beta, Betas, Count, NonNegative, Positive
from optim.core.matrix import MatmulDtype, MatrixRule
from optim.core.orthogonal import Method, orthogonal
from optim.muon import scale_factor


class SOAPMuon(MatrixRule):
    """SOAP's whitening of the momentum before Muon's orthogonalisation, for hidden matrices.

    Source: Vyas, "SOAP-Muon", 2026 (nikhilvyas.github.io/SOAP_Muon.pdf), as records 14 and 44 of
    modded-nanogpt's track 3 (records/track_3_optimization) run it.

        b <- momentum * b + (1 - momentum) * g
        u = momentum * b + (1 - momentum) * g
        t > 1:  y = Q_L^T u Q_R
                v <- beta2 * v + (1 - beta2) * y^2
                u <- Q_L (y / max(sqrt(v), eps)) Q_R^T
        O = orthogonalisation(u)               (as in muon; the records have "polar")
        p <- p * (1 - lr * weight_decay)
        p <- p - lr * s * O                    (s as in muon)
        L <- shampoo_beta * L + (1 - shampoo_beta) * g g^T,  R likewise with g^T g
        t = 1:  Q_L, Q_R = eigenvectors of L, R
        later, every precondition_frequency steps:  Q_L <- qr(L Q_L), its columns sorted by
            diag(Q_L^T L Q_L) with those of v;  Q_R likewise

    So the first step is muon's. Other parameters (embeddings, head, vectors): AdamW with betas, eps
    and weight_decay.
    Differs: the records hold it beside techniques of their own (a floor of the update's length, a
    brake on radial movement, a trust gate), which are left out; the first of them has sqrt(v) + eps
    instead of the maximum. They restore the length of u after the division, which the
    orthogonalisation makes irrelevant. v follows the momentum, not the gradient, and has no bias
    correction: a common factor cancels, too.
    Tuning: as muon. precondition_frequency 1 was worth its time in record 44, which counts steps
    and not seconds: the QR of a side costs many times as much as the rest. In a matrix that is not
    square, the first gradient does not span the longer side, and the basis of the rest is
    arbitrary: it differs from one machine to the next.
    State: momentum_buffer, exp_avg_sq, and two m x m and two n x n matrices, in at least float32: 8
    bytes per parameter and 8 (m^2 + n^2) / (m n) more for a matrix (27.1 for GPT-2 124M).
    """

    not_of_matrices = ("betas",)

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        momentum: Beta = 0.95,
        beta2: Beta = 0.9,
        shampoo_beta: Beta = 0.9,
        orthogonalisation: Method = "polar",
        scale: Literal["original", "match_rms_adamw"] = "match_rms_adamw",
        precondition_frequency: Count = 10,
        split_qkv: bool = True,
        matmul_dtype: MatmulDtype = "tf32",
        weight_decay: NonNegative = 0.1,
        betas: Betas = (0.9, 0.95),
        eps: Positive = 1e-8,
    ) -> None:
        super().__init__(params, locals())

    def matrix_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """Momentum and its mean square, and for each side its second moment and basis."""
        precision = torch.promote_types(p.dtype, torch.float32)
        names = ("momentum_buffer", "exp_avg_sq")
        state = {name: torch.zeros_like(p, dtype=precision) for name in names}
        for side, n in zip(("left", "right"), p.shape, strict=True):
            square = torch.zeros(n, n, dtype=precision, device=p.device)
            state.update({side: square, f"{side}_basis": square.clone()})
        return state

    def matrix_step(self, batch: Batch, c: Values) -> None:
        """Matrices of equal shape together."""
        h = batch.h
        for p, g, state in batch.stacks():
            b = state["momentum_buffer"]
            g = g.to(b.dtype)
            b.lerp_(g, 1 - h["momentum"])
            u = g.lerp(b, h["momentum"])
            if batch.step > 1:
                u = _whitened(u, state, h)
            u = orthogonal(u, h["orthogonalisation"])
            step_size = c["lr"] * scale_factor(p.shape[-2:], h["scale"])
            p.mul_(c["decay"]).sub_((step_size * u).to(p.dtype))
            _follow(g, state, batch)


def _whitened(u: Tensor, state: dict[str, Tensor], h: Values) -> Tensor:
    bases = state["left_basis"], state["right_basis"]
    y = rotated(u, *bases)
    v = state["exp_avg_sq"].lerp_(y.square(), 1 - h["beta2"])
    return rotated_back(y / v.sqrt().clamp(min=h["eps"]), *bases)


def _follow(g: Tensor, state: dict[str, Tensor], batch: Batch) -> None:
    """The second moments of both sides, and their bases."""
    h, v = batch.h, state["exp_avg_sq"]
    for side, moment in (("left", g @ g.mT), ("right", g.mT @ g)):
        state[side].lerp_(moment, 1 - h["shampoo_beta"])
        basis = state[f"{side}_basis"]
        if batch.step == 1:
            basis.copy_(first_basis(state[side]))
        elif (batch.step - 1) % h["precondition_frequency"] == 0:
            order = turn(state[side], basis)
            v.copy_(
                v.take_along_dim(order.unsqueeze(-1), -2)
                if side == "left"
                else v.take_along_dim(order.unsqueeze(-2), -1)
            )
