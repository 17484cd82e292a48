"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

import torch
from torch import Tensor

from optim.core import adamw
from optim.core.batch import Batch, Params, Values
from optim.core.eigenbasis import first_basis, turn
from optim.core.hyperparameters import Beta, Betas, Count, NonNegative
from optim.core.matrix import MatmulDtype, MatrixRule, bias_correction


class SOAP(MatrixRule):
    """Adam, run in the slowly turning eigenbasis of the gradients' second moments.

    Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv:2409.11321,
    Algorithm 3; first step, order and defaults of the authors' code (nikhilvyas/SOAP).

        t = 1:  L = (1 - shampoo_beta) g g^T,  R = (1 - shampoo_beta) g^T g
                Q_L, Q_R = eigenvectors of L, R;  p is not moved
        later, with k = t - 1:
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * (Q_L^T g Q_R)^2
        u = Q_L ((Q_L^T m Q_R) / (sqrt(v) + eps)) Q_R^T
        p <- p - lr * sqrt(1 - beta2^k) / (1 - beta1^k) * u
        p <- p * (1 - lr * weight_decay)
        L <- shampoo_beta * L + (1 - shampoo_beta) * g g^T,  R likewise with g^T g
        every precondition_frequency steps:  Q_L <- qr(L Q_L), its columns sorted by
            diag(Q_L^T L Q_L) with those of v;  Q_R likewise

    A side longer than max_precondition_dim is not rotated. Other parameters (embeddings, head,
    vectors): AdamW with betas, eps and weight_decay.
    `split_qkv` as in muon.
    Differs: the authors' code also rotates embeddings, on their short side; here they take AdamW's
    steps, which for GPT-2 saves almost no state but the largest matrix products. shampoo_beta is
    beta2 in their code, and a hyperparameter here.
    Tuning: AdamW's lr, or up to three times it, and its weight_decay; published runs take betas
    (0.95, 0.95). In a matrix that is not square, the first gradients do not span the longer side,
    and the basis of the rest is arbitrary: it differs from one machine to the next. The steps with
    a QR take many times as long: look at a high percentile of step times.
    State: exp_avg, exp_avg_sq, and two m x m and two n x n matrices, in at least float32: 8 bytes
    per parameter and 8 (m^2 + n^2) / (m n) more for a matrix (27.1 for GPT-2 124M).
    """

    buffers = adamw.BUFFERS

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 3e-3,
        betas: Betas = (0.95, 0.95),
        shampoo_beta: Beta = 0.95,
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.01,
        precondition_frequency: Count = 10,
        max_precondition_dim: Count = 10_000,
        split_qkv: bool = True,
        matmul_dtype: MatmulDtype = "tf32",
    ) -> None:
        super().__init__(params, locals())

    def matrix_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """Moments, and for each side its second moment and basis (empty if it is too long)."""
        state = super().matrix_state(p, h)
        precision = torch.promote_types(p.dtype, torch.float32)
        for side, n in zip(("left", "right"), p.shape, strict=True):
            n = n if n <= h["max_precondition_dim"] else 0
            square = torch.zeros(n, n, dtype=precision, device=p.device)
            state.update({side: square, f"{side}_basis": square.clone()})
        return state

    def matrix_step(self, batch: Batch, c: Values) -> None:
        """Matrices of equal shape together."""
        for p, g, state in batch.stacks():
            g = g.to(torch.promote_types(g.dtype, torch.float32))
            if batch.step == 1:
                _accumulate(g, state, batch.h["shampoo_beta"])
                for side in _sides(state):
                    state[f"{side}_basis"].copy_(first_basis(state[side]))
                continue
            _move(p, g, state, batch, c)
            _accumulate(g, state, batch.h["shampoo_beta"])
            if (batch.step - 1) % batch.h["precondition_frequency"] == 0:
                _turn(state)


def _move(p: Tensor, g: Tensor, state: dict[str, Tensor], batch: Batch, c: Values) -> None:
    h, m, v = batch.h, state["exp_avg"], state["exp_avg_sq"]
    beta1, beta2 = h["betas"]
    bases = state["left_basis"], state["right_basis"]
    m.lerp_(g.to(m.dtype), 1 - beta1)
    v.lerp_(_rotated(g, *bases).square().to(v.dtype), 1 - beta2)
    u = _rotated(m.to(g.dtype), *bases) / (v.to(g.dtype).sqrt() + h["eps"])
    u = _rotated(u, *(basis.mT for basis in bases))
    # not p.add_(u, alpha=...), of which inductor 2.13 makes another product
    u.mul_(c["lr"] * bias_correction(h["betas"], batch.step - 1))
    p.sub_(u.to(p.dtype)).mul_(c["decay"])


def _accumulate(g: Tensor, state: dict[str, Tensor], beta: float) -> None:
    for side in _sides(state):
        product = g @ g.mT if side == "left" else g.mT @ g
        state[side].lerp_(product, 1 - beta)


def _turn(state: dict[str, Tensor]) -> None:
    """One step of orthogonal iteration on each side; v follows its columns."""
    v = state["exp_avg_sq"]
    for side in _sides(state):
        order, dim = turn(state[side], state[f"{side}_basis"]), -2 if side == "left" else -1
        v.copy_(v.take_along_dim(order.unsqueeze(-3 - dim), dim))


def _rotated(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """left^T x right; an empty one is the identity."""
    x = left.mT @ x if left.numel() else x
    return x @ right if right.numel() else x


def _sides(state: dict[str, Tensor]) -> list[str]:
    return [side for side in ("left", "right") if state[side].numel()]
