"""Prodigy: Adam whose learning rate is an estimate of the distance to the solution."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from optim.core.base import UpdateRule
from optim.core.batch import Batch, Params, State, Tensors, Values
from optim.core.hyperparameters import AtLeastOne, Beta, Betas, NonNegative, Positive
from optim.core.schedule import Schedule

_ESTIMATE = ("d", "d_max", "numerator")  # kept in the first group


class Prodigy(UpdateRule):
    """Adam whose lr is d, an estimate for all parameters of the distance to the solution.

    Source: Mishchenko & Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner",
    arXiv:2306.06101, the Adam version of its algorithm, in the form of the authors' prodigyopt
    package, version 1.1.2.

        rate <- d * lr * (sqrt(1 - beta2^t) / (1 - beta1^t)  if use_bias_correction  else 1)
        r <- beta3 * r + d / d0 * rate * <g, p0 - p>             (over all parameters)
        s <- beta3 * s + d / d0 * (d  if safeguard_warmup  else rate) * g
        m <- beta1 * m + (1 - beta1) * d * g
        v <- beta2 * v + (1 - beta2) * d^2 * g^2
        d_hat <- d_coef * r / |s|_1                              (over all parameters)
        d_max <- max(d_max, d_hat);   d_new <- min(d_max, growth_rate * d)
        p <- p * (1 - weight_decay * rate) - rate * m / (sqrt(v) + d_new * eps)
        d <- d_new

    beta3 is sqrt(beta2) unless given; while d is d0, growth_rate does not limit it.

    Differs: from the paper, decay and the options (d_coef, growth_rate, safeguard_warmup, bias
    correction), which are the package's. From the package: d and the sums stay on the device, in
    float64; decay acts also while every gradient so far is zero; slice_p and coupled decay are
    left out.
    Tuning: lr stays 1 and the schedule multiplies it; tune d_coef (0.5 to 2) if anything. d times
    lr compares with AdamW's lr, and diagnostics() shows d. All groups share one lr. A warm-up
    makes d too large unless safeguard_warmup is set.
    State: exp_avg, exp_avg_sq, s, p0: 16 bytes per parameter; d and two sums.
    """

    buffers = ("exp_avg", "exp_avg_sq", "s")
    whole = (
        "lr",
        "betas",
        "beta3",
        "use_bias_correction",
        "safeguard_warmup",
        "d0",
        "d_coef",
        "growth_rate",
    )

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1.0,
        betas: Betas = (0.9, 0.999),
        beta3: Beta | None = None,
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.0,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: Positive = 1e-6,
        d_coef: Positive = 1.0,
        growth_rate: AtLeastOne | None = None,
    ) -> None:
        super().__init__(params, locals())

    def init_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """Moments, the sum s, and where the parameter began."""
        return {**super().init_state(p, h), "p0": p.detach().clone()}

    def check_step(self) -> None:
        """One d cannot serve groups of unequal lr.

        Raises:
            ValueError: the groups do not all have the same lr.
        """
        rates = [group["lr"] for group in self.param_groups]
        if min(rates) != max(rates):
            raise ValueError(
                f"Prodigy estimates one step size for all parameters, but its groups have lr"
                f" {', '.join(f'{rate:g}' for rate in rates)}; give all groups the same"
            )

    def check_schedule(self, schedule: Schedule) -> str | None:
        """Warns of a warm-up if the safeguard for it is off."""
        peak = schedule.factors.index(schedule.peak_factor)
        if schedule.factors[0] == schedule.peak_factor or self.defaults["safeguard_warmup"]:
            return None
        return (
            f"schedule '{schedule.name}' reaches its peak after {peak} updates; a warm-up makes"
            " Prodigy's estimate of its step size too large: set optimizer.safeguard_warmup = true"
        )

    def diagnostics(self) -> dict[str, float | Tensor]:
        """The estimate d; times lr it compares with AdamW's lr."""
        group = self.param_groups[0]
        return {"d": group.get("d", group["d0"])}

    def advance(self, batches: list[Batch]) -> None:
        """Accumulate over all parameters, estimate d, then move all of them."""
        if not batches and self.exchange is None:
            return
        first, device = self.param_groups[0], self.param_groups[0]["params"][0].device
        lr, (beta1, beta2) = first["lr"], first["betas"]
        # a rank without parameters of its own has no count but the group's
        step = max([first.get("steps", 0) + 1, *(batch.step for batch in batches)])
        beta3 = math.sqrt(beta2) if first["beta3"] is None else first["beta3"]
        start = torch.full((), first["d0"], dtype=torch.float64, device=device)
        d, d_max = (first.get(name, start).to(device) for name in _ESTIMATE[:2])
        numerator = first.get("numerator", torch.zeros_like(start)).to(device)
        correction = 1.0
        if first["use_bias_correction"]:
            correction = math.sqrt(1 - beta2**step) / (1 - beta1**step)
        rate = d * (lr * correction)
        growth = d / start

        numbers = {
            "m": d * (1 - beta1),
            "v": d * d * (1 - beta2),
            "s": growth * (d if first["safeguard_warmup"] else rate),
            "beta3": torch.full_like(d, beta3),
        }
        inner: dict[Tensor, Tensor] = {}
        norm: dict[Tensor, Tensor] = {}
        for batch in batches:
            # The sums over a tensor go here. They are no state, and are removed after this pass.
            precision = torch.promote_types(batch.params[0].dtype, torch.float32)
            scratch = {
                name: [start.new_zeros((), dtype=precision) for _ in batch.params]
                for name in ("inner", "norm")
            }
            batch.state.update(scratch)
            self.run(_accumulate, batch, _rounded(numbers, batch))
            inner.update(zip(batch.params, batch.state.pop("inner"), strict=True))
            norm.update(zip(batch.params, batch.state.pop("norm"), strict=True))

        numerator = beta3 * numerator + growth * rate * self._total(inner, device)
        denominator = self._total(norm, device)
        estimate = torch.where(denominator > 0, first["d_coef"] * numerator / denominator, d)
        d_max = torch.maximum(d_max, estimate)
        new = d_max
        if first["growth_rate"] is not None:
            grown = torch.where(d == start, torch.maximum(d, estimate), d) * first["growth_rate"]
            new = torch.minimum(d_max, grown)
        # new tensors: old ones may be saved
        first.update(d=new, d_max=d_max, numerator=numerator, steps=step)

        for batch in batches:
            keep = 1 - batch.h["weight_decay"] * rate
            numbers = {"rate": rate, "keep": keep, "eps": new * batch.h["eps"]}
            self.run(self.update, batch, _rounded(numbers, batch))

    def _total(self, parts: Mapping[Tensor, Tensor], device: torch.device) -> Tensor:
        """In float64, over the parameters of all ranks, and the same for any order of them."""
        zero = torch.zeros((), dtype=torch.float64, device=device)
        own = [parts.get(p, zero) for group in self.param_groups for p in group["params"]]
        by_parameter = self.by_rank(torch.stack([x.to(device, zero.dtype) for x in own])).sum(0)
        return by_parameter.sort().values.sum()

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        """The step itself, with the sums done."""
        root = torch._foreach_sqrt(state["exp_avg_sq"])
        torch._foreach_add_(root, [c["eps"]] * len(root))  # one tensor would be read
        step = torch._foreach_div(state["exp_avg"], root)
        torch._foreach_mul_(step, c["rate"])
        torch._foreach_mul_(params, c["keep"])
        torch._foreach_sub_(params, step)


def _accumulate(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
    """m, v and s; of each tensor, <g, p0 - p> and |s|_1."""
    (beta1, beta2), m, v, s = h["betas"], state["exp_avg"], state["exp_avg_sq"], state["s"]
    way = torch._foreach_sub(state["p0"], params)
    torch._foreach_mul_(way, grads)
    torch._foreach_mul_(m, beta1)
    torch._foreach_add_(m, torch._foreach_mul(grads, c["m"]))
    torch._foreach_mul_(v, beta2)
    square = torch._foreach_mul(grads, grads)
    torch._foreach_mul_(square, c["v"])
    torch._foreach_add_(v, square)
    torch._foreach_mul_(s, c["beta3"])
    torch._foreach_add_(s, torch._foreach_mul(grads, c["s"]))
    for i, total in enumerate(state["inner"]):
        total.copy_(way[i].sum(dtype=total.dtype))
        state["norm"][i].copy_(s[i].abs().sum(dtype=total.dtype))


def _rounded(numbers: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """In the precision of the arithmetic on this batch."""
    p = batch.params[0]
    precision = torch.promote_types(p.dtype, torch.float32)
    return {name: x.to(p.device, precision) for name, x in numbers.items()}
