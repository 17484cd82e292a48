"""What an update shows of itself: norms, local gain, and the noise of the gradient.

`Inside` measures every n-th update and changes none: it copies the weights before the optimizer's
step, and subtracts. So it holds for any optimizer, with its wrappers and its weight decay.
The gradient is the one that the optimizer was given: the mean over the whole batch, after clipping.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from configs import Batch
from optim.core.base import Optimizer

SAMPLE = 1024  # coordinates of a tensor whose gains give the percentiles; smaller ones give all
PERCENTILES = (5, 50, 95)


class Ranks(Protocol):
    """The place of this process among the ranks."""

    rank: int

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks, in place."""


class Inside:
    """Measures update 0 and every `every`-th after it; None: nothing.

    All ranks make the same calls. `found` is what the last update showed: on rank 0, and only if
    it was due. By name, lists with a number for each tensor:

        tensors, roles   names and roles
        gradient_norm    L2 norm of the gradient g
        weight_norm      of the weights w before the update
        update_norm      of the update u: weights after less weights before
        update_ratio     norm(u) / norm(w)
        cosine           of u and -g
        gain             local gain: norm(u) / (lr norm(g)), with the lr of the tensor's group
        gain_p5, gain_p50, gain_p95   percentiles of |u_i| / (lr |g_i|) over coordinates
        withheld         share of coordinates that the rule clipped or masked; absent if not known

    and "noise", absent where all is one micro-batch: unbiased estimates of |G|^2, the squared norm
    of the true gradient (before clipping), and of S, the trace of the covariance of the gradient of
    one token. From the squared norms at B tokens (the whole batch) and b (a micro-batch), whose
    expectations are |G|^2 + S / B and |G|^2 + S / b.

    Source: McCandlish et al., "An Empirical Model of Large-Batch Training", arXiv:1812.06162,
    appendix A.1. Local gain: the first figure of SGD-SaI's package (Xu et al., arXiv:2412.11768).
    """

    def __init__(
        self, every: int | None, optimizer: Optimizer, batch: Batch, process: Ranks
    ) -> None:
        self.every, self.optimizer, self.batch, self.process = every, optimizer, batch, process
        self.found: dict[str, Any] | None = None
        self.norms: list[Tensor] | None = None  # of each micro-batch and tensor; None: not due

    @property
    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @contextmanager
    def gradients(self, step: int) -> Iterator[None]:
        """Around the passes backward of update `step`: note the norm of every micro-batch."""
        self.found = self.norms = None
        hooks = self._watched() if self.every and step % self.every == 0 else []
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _watched(self) -> list[RemovableHandle]:
        """Hooks that see what one pass adds to .grad, before ranks exchange anything."""
        self.norms = []
        return [p.register_hook(self._note) for p in self._parameters]

    def _note(self, grad: Tensor) -> None:
        assert self.norms is not None
        precision = torch.promote_types(grad.dtype, torch.float32)
        self.norms.append(torch.linalg.vector_norm(grad, dtype=precision))

    @contextmanager
    def update(self, norm: float, applied: bool) -> Iterator[None]:
        """Around the optimizer's step. norm: of all gradients, before clipping."""
        if self.norms is None or not applied:
            yield
            return
        square, withheld = self._over_ranks(self.norms)
        before = self._copied()
        yield
        if before:
            self.found = self._measured(before, withheld, square, norm)

    @torch.no_grad()
    def _copied(self) -> list[Tensor]:
        """The weights in at least float32, on rank 0."""
        params = self._parameters if self.process.rank == 0 else []
        wide = [torch.promote_types(p.dtype, torch.float32) for p in params]
        return [p.detach().to(dtype, copy=True) for p, dtype in zip(params, wide, strict=True)]

    @torch.no_grad()
    def _over_ranks(self, norms: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the squared norms of all micro-batches, and shares withheld, (tensors,) or (0,).

        Of parameters that ranks share, each owner knows the share; otherwise all ranks do.
        """
        first = torch.stack(norms).double().square().sum()
        shares = self.optimizer.withheld()
        if shares is not None and (self.optimizer.ranks > 1 or self.process.rank == 0):
            nothing = torch.zeros_like(first)
            own = [shares.get(p, nothing).to(first) for p in self._parameters]
        else:
            own = [torch.zeros_like(first)] * (0 if shares is None else len(self._parameters))
        summed = self.process.sum(torch.stack([first, *own]))
        return summed[0], summed[1:]

    def _noise(self, norm: float, squares: float) -> dict[str, Any]:
        """Estimates from the norm of the whole gradient and the squares of all micro-batches."""
        batch = self.batch
        parts = batch.size // batch.micro  # micro-batches of all ranks
        if parts == 1:
            return {}
        # the loss of each was divided by the number of micro-batches of its rank
        small = batch.micro_batches**2 * squares / parts
        large, b, whole = norm**2, batch.micro * batch.block_size, batch.size * batch.block_size
        return {
            "noise": {
                "gradient_square": (whole * large - b * small) / (whole - b),
                "trace": (small - large) / (1 / b - 1 / whole),
            }
        }

    @torch.no_grad()
    def _measured(
        self, updates: list[Tensor], withheld: Tensor, square: Tensor, norm: float
    ) -> dict[str, Any]:
        """All of `found`. updates: the weights before; they become minus the updates.

        withheld, square: as `_over_ranks` gives them. norm: as `update` gets it.
        """
        params = self._parameters
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        weights = torch._foreach_norm(updates)
        torch._foreach_sub_(updates, params)
        flat = [(u.reshape(-1), g.reshape(-1)) for u, g in zip(updates, grads, strict=True)]
        dots = [torch.dot(u, g.to(u.dtype)) for u, g in flat]
        groups = [group for group in self.optimizer.param_groups for _ in group["params"]]
        rates = [float(group["lr"]) for group in groups]
        rows = [weights, torch._foreach_norm(updates), torch._foreach_norm(grads), dots]
        columns = [torch.stack([x.double() for x in row]) for row in rows]
        columns += [square.expand(len(params)), *_percentiles(flat, rates).double()]
        columns += [withheld] if len(withheld) else []
        w, u, g, dot, squares, *rest = torch.stack(columns).tolist()  # the one transfer
        lists = {
            "gradient_norm": g,
            "weight_norm": w,
            "update_norm": u,
            "update_ratio": [_over(a, b) for a, b in zip(u, w, strict=True)],
            "cosine": [_over(d, a * b) for d, a, b in zip(dot, u, g, strict=True)],
            "gain": [_over(a, lr * b) for a, lr, b in zip(u, rates, g, strict=True)],
        }
        named = [*(f"gain_p{p}" for p in PERCENTILES), "withheld"]
        names = [name for group in self.optimizer.param_groups for name in group["names"]]
        roles = [group["role"] for group in groups]
        lists |= dict(zip(named, rest, strict=False))
        return {"tensors": names, "roles": roles, **lists, **self._noise(norm, squares[0])}


def _over(a: float, b: float) -> float:
    """a / b; NaN where b is zero."""
    return a / b if b else math.nan


def _percentiles(flat: list[tuple[Tensor, Tensor]], rates: list[float]) -> Tensor:
    """PERCENTILES of |u_i| / (lr |g_i|) within each tensor, (percentiles, tensors).

    flat: update and gradient of each tensor, in one dimension.

    A large tensor gives every k-th coordinate, always the same, where k shares no factor with the
    tensor's size: so all its rows and columns take part. Coordinates with u_i = g_i = 0 (of padded
    rows) are left out.
    """
    gains = torch.full((len(flat), SAMPLE), math.nan, device=flat[0][0].device)
    for row, (u, g), lr in zip(gains, flat, rates, strict=True):
        stride = _stride(u.numel())
        some = u[::stride] / g[::stride]
        row[: len(some)] = some.abs() / lr if lr else math.nan
    shares = torch.tensor(PERCENTILES, dtype=gains.dtype, device=gains.device) / 100
    return torch.nanquantile(gains, shares, dim=1)


def _stride(numel: int) -> int:
    """From one coordinate of the sample to the next."""
    stride = math.ceil(numel / SAMPLE)
    while math.gcd(stride, numel) > 1:
        stride += 1
    return stride
