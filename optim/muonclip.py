"""MuonClip: Muon, with queries and keys scaled down where attention logits grow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from optim.core.batch import Batch, Params, Values
from optim.core.hyperparameters import Beta, Betas, Count, NonNegative, Positive, Ratio
from optim.core.matrix import MatrixRule
from optim.core.orthogonal import Method, orthogonalised
from optim.core.width import ORTHOGONAL_RMS
from optim.muon import averaged


class MuonClip(MatrixRule):
    """Muon and QK-clip: after its step no head's largest attention logit is above tau.

    Source: Kimi Team, "Kimi K2: Open Agentic Intelligence", arXiv:2507.20534, Algorithm 1.

        b <- momentum * b + (1 - momentum) * g
        u = momentum * b + (1 - momentum) * g  if nesterov  else b
        p <- p * (1 - lr * weight_decay)
        p <- p - lr * 0.2 * sqrt(max(m, n)) * orthogonalised(u)
        every clip_every updates, for each head h of each attention:
            S = the largest q . k / sqrt(d) in the forward pass of this update
            gamma = min(1, tau / S)
            q's rows of the head <- gamma^alpha * those rows         (W and bias)
            k's rows of the head <- gamma^(1 - alpha) * those rows

    Other parameters (embeddings, head, vectors): AdamW with betas, eps and weight_decay.
    Differs: b is an average where the report has a sum; the direction is the same. GPT-2 has biases
    in its projections: those of q and k are scaled too, or logits would not scale by gamma. The
    optimizer's state is not scaled. S is over all micro-batches and ranks, before the update. The
    trainer gives it; in another loop call `update_logits` before each `step`.
    Tuning: as muon. A tau of 100 is rarely reached at this size; `optimizer/largest_logit` shows
    where it is. Each update that clips computes the products of queries and keys once more.
    State: momentum_buffer: 4 bytes per parameter of a hidden matrix; exp_avg, exp_avg_sq: 8 bytes
    of the others (5.27 for GPT-2 124M).
    """

    buffers = ("momentum_buffer",)
    bounds_norms = True
    whole = ("clip_every",)
    not_of_matrices = ("betas", "eps")
    width_powers = ORTHOGONAL_RMS
    _logits: Mapping[str, Tensor] | None = None  # for the next step
    _last: Mapping[str, Tensor] | None = None  # the last ones there were, for the curves

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        momentum: Beta = 0.95,
        nesterov: bool = False,
        tau: Positive = 100.0,
        alpha: Ratio = 0.5,
        clip_every: Count = 1,
        orthogonalisation: Method = "newton_schulz",
        split_qkv: bool = True,
        weight_decay: NonNegative = 0.1,
        betas: Betas = (0.9, 0.95),
        eps: NonNegative = 1e-8,
    ) -> None:
        super().__init__(params, locals())

    def logits_due(self, step: int) -> bool:
        """Every clip_every updates."""
        return bool(step % self.defaults["clip_every"] == 0)

    def check_step(self) -> None:
        """Warns at the first step if no logits were given: it is then Muon."""
        grads = (p.grad for group in self.param_groups for p in group["params"])
        if self._logits is None and not self.state and any(g is not None for g in grads):
            warnings.warn(
                "MuonClip was given no attention logits, so it clips nothing; call update_logits"
                " before each step (docs/optimizers.md)",
                stacklevel=2,
            )

    def update_logits(self, largest: Mapping[str, Tensor]) -> None:
        """Clip by these logits at the end of the next step.

        Raises:
            RuntimeError: an attention has no fused "c_attn" among the parameters.
        """
        names = {name for _, name, _, _ in self._entries()}
        for attention in largest:
            if f"{attention}.c_attn.weight" not in names:
                raise RuntimeError(
                    f"MuonClip has logits of '{attention}' but no parameter"
                    f" '{attention}.c_attn.weight'; give groups with the model's \"names\""
                )
        self._logits = dict(largest)

    def matrix_step(self, batch: Batch, c: Values) -> None:
        u = averaged(batch.state["momentum_buffer"], batch.grads, batch.h)
        updates = orthogonalised(u, batch.h["orthogonalisation"])
        torch._foreach_mul_(updates, [0.2 * math.sqrt(max(x.shape)) for x in updates])
        torch._foreach_mul_(batch.params, c["decay"])
        torch._foreach_add_(batch.params, updates, alpha=-c["lr"])

    def advance(self, batches: list[Batch]) -> None:
        """Muon's step, then QK-clip."""
        super().advance(batches)
        named = {name: (p, h) for p, name, _, h in self._entries()}
        for attention, logits in (self._logits or {}).items():
            weight, h = named[f"{attention}.c_attn.weight"]
            gamma = h["tau"] / logits.clamp(min=h["tau"])
            bias = named.get(f"{attention}.c_attn.bias", (None, h))[0]
            for p in (weight, bias):
                if p is not None and p.grad is not None:
                    q, k, _ = p.view(3, len(logits), -1)
                    q.mul_((gamma ** h["alpha"]).to(p.dtype)[:, None])
                    k.mul_((gamma ** (1 - h["alpha"])).to(p.dtype)[:, None])
        self._last, self._logits = self._logits or self._last, None

    def diagnostics(self) -> dict[str, float | Tensor]:
        """The largest logit of the last update that was watched."""
        if not self._last:
            return {}
        return {"largest_logit": torch.stack([x.amax() for x in self._last.values()]).amax()}
