"""Scion: steps inside balls of norms that suit each kind of layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core.base import UpdateRule
from optim.core.batch import Batch, Params, State, Tensors, Values
from optim.core.hyperparameters import Beta, Count, NonNegative
from optim.core.matrix import (
    check_matrix_state,
    float32_products,
    is_hidden,
    matrix_cost,
    single_matrices,
    split_kind,
    stacked_state,
    warn_without_role,
)
from optim.core.orthogonal import orthogonalised

_EPS = 1e-8


class Scion(UpdateRule):
    """Frank-Wolfe steps: towards the point of a norm ball that the momentum points away from.

    Source: Pethick et al., "Training Deep Learning Models with Norm-Constrained LMOs",
    arXiv:2502.07529, Algorithms 1 and 2 and the norms of its section 4.

        b <- momentum * b + (1 - momentum) * g
        p <- (1 - lr) * p - lr * radius * d(b)       (constrained: stays within the ball)
        p <- p - lr * radius * d(b)                  (otherwise)
        hidden matrices, m x n:   d(b) = sqrt(m / n) * NewtonSchulz(b / ||b||_F)    hidden_radius
        embeddings, heads, m x n: d(b) = sign(b) / n                             embedding_radius
        vectors:                  d(b) = b / RMS(b)                                 vector_radius

    A matrix in a group without a role is a hidden one.
    Differs: the paper writes momentum as 1 - momentum. Embeddings take the output layer's norm: in
    this model the token embedding is the head, as in the authors' runs with shared weights, which
    have neither positions nor vectors. The authors initialise on the balls; here every optimizer
    starts from the same weights. `split_qkv` as in muon.
    Tuning: nothing of AdamW's carries over. lr is also the weight decay, and one lr serves all
    layers: the radii, tuned on a small model, set their proportions, and the authors report that
    they transfer. An lr above 1 overshoots the ball. All parameters move at a fixed speed, so lr
    has to decay.
    State: momentum_buffer: 4 bytes per parameter.
    """

    buffers = ("momentum_buffer",)
    whole = ("hidden_radius", "embedding_radius", "vector_radius")  # by role already

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 2.0**-12,
        momentum: Beta = 0.9,
        hidden_radius: NonNegative = 50.0,
        embedding_radius: NonNegative = 3000.0,
        vector_radius: NonNegative = 4.0,
        constrained: bool = True,
        ns_steps: Count = 5,
        split_qkv: bool = True,
    ) -> None:
        super().__init__(params, locals())
        warn_without_role(self)

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """One of "matrix", "qkv" (three matrices in one), "sign" and "vector"."""
        if p.ndim != 2:
            return "vector"
        return split_kind(p, name, group) if is_hidden(p, group) else "sign"

    def flat(self, kind: str) -> bool:
        """The number of columns counts, except for a vector."""
        return kind == "vector"

    def compiles(self, kind: str) -> bool:
        """Matrices go through library calls."""
        return kind in ("sign", "vector")

    def init_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """The momentum; of Q, K and V stacked."""
        return stacked_state(super().init_state, p, h)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but checks the state of matrices (see `check_matrix_state`)."""
        super().load_state_dict(state_dict)
        check_matrix_state(self)

    def update_cost(self, p: Tensor, h: Values) -> float:
        """Of a matrix its products, of all else its elements."""
        return matrix_cost(p, h) if h["kind"] in ("matrix", "qkv") else float(p.numel())

    def coefficients(self, h: Values, step: int) -> Values:
        """The factor of a weight, and the step's size."""
        role = {"sign": "embedding", "vector": "vector"}.get(h["kind"], "hidden")
        left = 1 - h["lr"] if h["constrained"] else 1.0
        return {"left": left, "step_size": h["lr"] * h[f"{role}_radius"]}

    def advance(self, batches: list[Batch]) -> None:
        """The matrices by library calls, all else in one pass."""
        for batch in batches:
            if batch.h["kind"] in ("sign", "vector"):
                self.run(self.update, batch, self.coefficients(batch.h, batch.step))
        hidden = (batch for batch in batches if batch.h["kind"] in ("matrix", "qkv"))
        for batch in single_matrices(hidden):
            with float32_products("float32", batch.params[0].device.type):
                _spectral_step(batch, self.coefficients(batch.h, batch.step))

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        """The step of embeddings and of vectors."""
        b = state["momentum_buffer"]
        torch._foreach_lerp_(b, grads, 1 - h["momentum"])
        if h["kind"] == "sign":
            d = torch._foreach_sign(b)
            torch._foreach_div_(d, [float(t.shape[-1]) for t in b])
        else:
            rms = torch._foreach_norm(b)
            torch._foreach_div_(rms, [math.sqrt(t.numel()) for t in b])
            torch._foreach_add_(rms, _EPS)
            d = torch._foreach_div(b, rms)
        torch._foreach_mul_(d, c["step_size"])
        torch._foreach_mul_(params, c["left"])
        torch._foreach_sub_(params, d)


def _spectral_step(batch: Batch, c: Values) -> None:
    """The step of hidden matrices."""
    h, b = batch.h, batch.state["momentum_buffer"]
    torch._foreach_lerp_(b, batch.grads, 1 - h["momentum"])
    d = orthogonalised(b, steps=h["ns_steps"])
    torch._foreach_mul_(d, [math.sqrt(m / n) for m, n in (u.shape for u in d)])
    torch._foreach_mul_(batch.params, c["left"])
    torch._foreach_add_(batch.params, d, alpha=-c["step_size"])
