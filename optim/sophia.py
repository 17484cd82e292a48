"""Sophia-G: momentum over a clipped, sampled diagonal of the Gauss-Newton matrix."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core.base import UpdateRule
from optim.core.batch import Params, State, Tensors, Values
from optim.core.hyperparameters import Betas, Count, NonNegative, Positive


class SophiaG(UpdateRule):
    """Momentum divided by the curvature of each coordinate, and clipped to 1 where that is small.

    Source: Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
    Pre-training", arXiv:2305.14342, Algorithms 2 (Gauss-Newton-Bartlett) and 3; clipping and eps
    as in the authors' repository, Liuhong99/Sophia.

        every k-th step, first:    labels drawn from the model's own predictions at p, and
            h <- beta2 * h + (1 - beta2) * B * g_hat^2      (g_hat: gradient of the mean loss over
                                                             the batch's B tokens, these labels)
        m <- beta1 * m + (1 - beta1) * g
        p <- p * (1 - lr * weight_decay)
        p <- p - lr * clip(m / (rho * h + eps), -1, 1)

    Differs: B is within h, as in Algorithm 2; the repository has it beside rho, which is the same
    if the batch size is constant. The repository estimates after steps k, 2k, ... and so begins
    with k steps of the sign of m; here, as in Algorithm 3, the estimate comes before steps 1,
    k + 1, ... on their own whole batch. g_hat is not clipped, as in the paper; the repository clips
    it. A g_hat that is not finite is skipped whole, so that h stays finite; with `check_gradients`
    it is an error. diagnostics() counts these as "estimates_skipped".
    Tuning: a clipped coordinate moves by lr, as with Lion. The authors' script takes AdamW's lr at
    124M and twice its weight_decay; they tune rho until a tenth to a half of the coordinates is
    not clipped, the share that diagnostics() calls "unclipped". The extra pass is on the clock:
    about 1 / k of the training time.
    State: exp_avg, hessian: 8 bytes per parameter.
    """

    buffers = ("exp_avg", "hessian")
    whole = ("k",)

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 4e-4,
        betas: Betas = (0.965, 0.99),
        rho: Positive = 0.05,
        eps: Positive = 1e-15,
        weight_decay: NonNegative = 0.0,
        k: Count = 10,
    ) -> None:
        super().__init__(params, locals())

    def curvature_due(self, step: int) -> bool:
        """Every k-th step, from the first."""
        return step % int(self.defaults["k"]) == 0

    def check_step(self) -> None:
        """Warns at the first step if there is no estimate: each step is then the sign of m."""
        known = self.state or "estimates_skipped" in self.param_groups[0]
        if not known and any(p.grad is not None for g in self.param_groups for p in g["params"]):
            warnings.warn(
                "SophiaG has no estimate of the curvature, so its steps are lr times the sign of"
                " its momentum; call update_curvature every k steps"
                " (docs/optimizers.md, In your own loop)",
                stacklevel=2,
            )

    @torch.no_grad()
    def update_curvature(self, tokens: int) -> None:
        """h <- beta2 * h + (1 - beta2) * B * g_hat^2, with B = `tokens` and g_hat = `p.grad`."""
        if self.check_gradients:
            self.refuse_non_finite()
        batches = self._batches(steps=0)
        if not batches and self.exchange is None:
            return
        first = self.param_groups[0]
        device = first["params"][0].device
        norms = [norm for batch in batches for norm in torch._foreach_norm(batch.grads)]
        bad = [torch.zeros((), device=device), *((~norm.isfinite()).to(device) for norm in norms)]
        finite = self.by_rank(torch.stack([x.float() for x in bad]).sum()).sum() == 0
        skipped = first.get("estimates_skipped", torch.zeros((), dtype=torch.int64))
        first["estimates_skipped"] = skipped.to(device) + ~finite
        for batch in batches:
            p = batch.params[0]
            known = finite.to(p.device, torch.promote_types(p.dtype, torch.float32))
            weight = known * (1 - batch.h["betas"][1])
            self.run(_curvature, batch, {"tokens": float(tokens), "weight": weight})

    @torch.no_grad()
    def warm_up(self) -> None:
        """Compiles also the update of the curvature."""
        super().warm_up()
        if self._should_compile():
            for batch in self._examples():
                p = batch.params[0]
                one = torch.ones((), dtype=torch.promote_types(p.dtype, torch.float32))
                self.run(_curvature, batch, {"tokens": 1.0, "weight": one.to(p.device)})

    def diagnostics(self) -> dict[str, float | Tensor]:
        """The share of coordinates that are not clipped, and the number of estimates skipped.

        The share is NaN before the first step.
        """
        device = self.param_groups[0]["params"][0].device
        inside, total = [torch.zeros((), dtype=torch.int64, device=device)], 0
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state.get(p)
                if state and state["step"]:
                    bound = group["rho"] * state["hessian"] + group["eps"]
                    inside.append((state["exp_avg"].abs() < bound).sum().to(device))
                    total += p.numel()
        unclipped = torch.stack(inside).sum()
        counts = torch.stack([unclipped, torch.full_like(unclipped, total)])
        unclipped, every = self.by_rank(counts).sum(0).double()
        skipped = self.param_groups[0].get("estimates_skipped", 0)
        return {"unclipped": unclipped / every, "estimates_skipped": skipped}

    def held_back(self, p: Tensor, state: Mapping[str, Any], h: Values) -> Tensor | None:
        """Where m / (rho * h + eps) is clipped."""
        assert p.grad is not None
        m = torch.lerp(state["exp_avg"], p.grad, 1 - h["betas"][0])
        return m.abs() >= state["hessian"] * h["rho"] + h["eps"]

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        (beta1, _), m = h["betas"], state["exp_avg"]
        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(params, c["decay"])
        bound = torch._foreach_mul(state["hessian"], h["rho"])
        torch._foreach_add_(bound, h["eps"])
        step = torch._foreach_div(m, bound)
        torch._foreach_clamp_max_(step, 1.0)
        torch._foreach_clamp_min_(step, -1.0)
        torch._foreach_mul_(step, c["lr"])
        torch._foreach_sub_(params, step)


def _curvature(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
    """h <- h + weight * (B * g_hat^2 - h); leaves h as it is if the weight is 0."""
    hessian = state["hessian"]
    square = torch._foreach_mul(grads, grads)
    torch._foreach_mul_(square, c["tokens"])
    change = [(s - x).nan_to_num(0.0, 0.0, 0.0) for s, x in zip(square, hessian, strict=True)]
    torch._foreach_mul_(change, c["weight"])
    torch._foreach_add_(hessian, change)
