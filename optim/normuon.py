"""NorMuon: Muon with the rows of its update normalised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from optim.core.batch import Batch, Params, Values
from optim.core.hyperparameters import Beta, Betas, Count, NonNegative
from optim.core.matrix import MatrixRule
from optim.core.orthogonal import Method, ProductDtype, iterations
from optim.core.width import SPECTRAL, Powers
from optim.muon import momentum_orthogonalised

_EPS = 1e-10


class NorMuon(MatrixRule):
    """Muon whose update is divided, row by row, by a running root mean square of that row.

    Source: Li et al., "NorMuon: Making Muon more efficient and scalable", arXiv:2510.05491,
    Algorithm 1.

        b <- momentum * b + (1 - momentum) * g
        u = momentum * b + (1 - momentum) * g  if nesterov  else b
        O = orthogonalised(u)                                    (as in muon, with its options)
        v <- beta2 * v + (1 - beta2) * mean(O^2 over each row)
        N = O / (sqrt(v) + 1e-10)
        p <- p * (1 - lr * weight_decay)
        p <- p - lr * s * N
        scale "match_rms_adamw":  s = 0.2 * sqrt(m n) / ||N||_F
        scale "original":         s = sqrt(max(1, m / n)) * ||O||_F / ||N||_F

    Other parameters (embeddings, head, vectors): AdamW with betas, eps and weight_decay.
    Differs: Algorithm 1 has scale "match_rms_adamw" and no Nesterov momentum; "original", with it,
    is the authors' published code, which keeps Muon's norm. v has no bias correction in either:
    a factor common to all rows cancels. `split_qkv` as in muon.
    Tuning: as muon; "match_rms_adamw" here gives the update an RMS of 0.2 exactly.
    State: momentum_buffer: 4 bytes per parameter of a hidden matrix, and 4 bytes per row;
    exp_avg, exp_avg_sq: 8 bytes of the others (5.27 for GPT-2 124M).
    """

    buffers = ("momentum_buffer",)
    not_of_matrices = ("betas", "eps")

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        momentum: Beta = 0.95,
        beta2: Beta = 0.95,
        nesterov: bool = True,
        orthogonalisation: Method = "newton_schulz",
        ns_steps: Count | None = None,
        gram: bool = False,
        matmul_dtype: ProductDtype = "auto",
        normalise_rows: bool = False,
        renormalise: bool = False,
        scale: Literal["original", "match_rms_adamw"] = "match_rms_adamw",
        split_qkv: bool = True,
        weight_decay: NonNegative = 0.1,
        betas: Betas = (0.9, 0.95),
        eps: NonNegative = 1e-8,
    ) -> None:
        super().__init__(params, locals())

    @classmethod
    def width_rule(cls, h: Values) -> Powers | None:
        """Only with Muon's norm: of one RMS, how large the norm is depends on the rank of u."""
        return SPECTRAL if h["scale"] == "original" and not h["renormalise"] else None

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """As muon's."""
        iterations(group["orthogonalisation"], group["ns_steps"])
        return super().kind(p, name, group)

    def matrix_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """The momentum, and the mean square of each row."""
        rows = torch.zeros(
            len(p), 1, dtype=torch.promote_types(p.dtype, torch.float32), device=p.device
        )
        return {**super().matrix_state(p, h), "row_mean_square": rows}

    def matrix_step(self, batch: Batch, c: Values) -> None:
        h = batch.h
        updates = momentum_orthogonalised(batch)
        v = batch.state["row_mean_square"]
        norms = torch._foreach_norm(updates)
        means = [u.to(v[0].dtype).square().mean(-1, keepdim=True) for u in updates]
        torch._foreach_lerp_(v, means, 1 - h["beta2"])
        divisors = torch._foreach_add(torch._foreach_sqrt(v), _EPS)
        normalised = [u / d.to(u.dtype) for u, d in zip(updates, divisors, strict=True)]
        for n, norm in zip(normalised, norms, strict=True):
            rows, columns = n.shape
            n.div_(n.norm().clamp(min=_EPS))
            if h["scale"] == "original":
                n.mul_(norm * math.sqrt(max(1, rows / columns)))
            else:
                n.mul_(0.2 * math.sqrt(rows * columns))
        torch._foreach_mul_(batch.params, c["decay"])
        torch._foreach_add_(batch.params, normalised, alpha=-c["lr"])
