"""PSGD-Kron: a whitening of both sides of the momentum, learned by gradient steps of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from optim.core.base import UpdateRule
from optim.core.batch import Batch, Params, Values
from optim.core.hyperparameters import Beta, Count, NonNegative, Positive, PositiveRatio
from optim.core.matrix import (
    FLOPS_PER_ELEMENT,
    MatmulDtype,
    check_matrix_state,
    float32_products,
    is_hidden,
    mixed_seed,
    single_matrices,
    split_kind,
    stacked_state,
)

_DAMPING = math.sqrt(torch.finfo(torch.float32).eps)
_MAX_RMS = 1.1


class PSGDKron(UpdateRule):
    """Momentum multiplied from both sides by factors that are fitted so that the result is white.

    Source: Pooladzandi & Li, "Curvature-Informed SGD via General Purpose Lie-Group
    Preconditioners", arXiv:2402.04553, after Li, arXiv:1512.04202; order, constants and defaults of
    kron_torch (evanatyourservice/kron_torch). For an m x n matrix:

        m <- beta1 * m + (1 - beta1) * g,  d = m / (1 - beta1^t)
        at a fit, with V standard normal:
            d <- d + sqrt(1.2e-7) * mean|d| * V
            A = Q_L d Q_R^T,  B = Q_L^-T V Q_R^-1
            Q_L <- Q_L - precond_lr * triu(A A^T - B B^T) Q_L / b(A A^T + B B^T)
            Q_R <- Q_R - precond_lr * triu(A^T A - B^T B) Q_R / b(A^T A + B^T B)
        u = Q_L^T Q_L d Q_R^T Q_R
        u <- u * min(1, 1.1 / RMS(u))
        p <- p * (1 - lr * weight_decay)
        p <- p - lr * u

    Q_L and Q_R are upper triangular and begin as sqrt(initial_scale) I. b bounds the largest
    eigenvalue from below: it is |S x| / |x| for x = S c, c the longest column of S. A side of
    length 1 or above max_triangular has a diagonal factor, for which b is the largest element; so
    has a vector, which has one side. The first flat_start + 1 steps all have a fit. Then the
    probability of one is exp(-probability_decay (t - 1 - flat_start)), at least min_probability,
    and a fit comes as soon as the inverse of that, in steps, has passed since the last.
    Differs: V depends on the step and the shape only, so it is equal on all ranks, after a resume
    and for parameters of equal shape. The two factors get equal largest elements at every fit:
    that moves no update but keeps them from overflowing; the published code does so at one fit of
    100, drawn at random. A gradient of zeros fits nothing: the published factors then grow until
    they overflow. Every parameter takes part, embeddings and vectors too, as published; there
    vectors do not decay, here that is up to their group. A tensor of more dimensions is taken as
    the matrix of its first dimension and the rest. `split_qkv` as in muon.
    Tuning: the authors advise about a third of adamw's lr, and three to ten times its weight_decay.
    An update has an RMS of about 1, at most 1.1. A factor grows by at most precond_lr at a fit, so
    that small gradients g cost tens of steps; initial_scale of about RMS(g)^(-1/2) saves them. With
    hyperball, record 33 of modded-nanogpt's track 3 has precond_lr 1, beta1 0.95, a fit at every
    step and lr 0.025.
    State: momentum_buffer: 4 bytes per parameter; for an m x n matrix an m x m and an n x n matrix,
    in at least float32: 4 (m^2 + n^2) / (m n) more (13.6 for GPT-2 124M).
    """

    buffers = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 3e-4,
        beta1: Beta = 0.9,
        weight_decay: NonNegative = 0.0,
        precond_lr: PositiveRatio = 0.1,
        initial_scale: Positive = 1.0,
        max_triangular: Count = 8192,
        flat_start: NonNegativeInt = 500,
        probability_decay: NonNegative = 0.001,
        min_probability: PositiveRatio = 0.03,
        split_qkv: bool = True,
        matmul_dtype: MatmulDtype = "float32",
        seed: int = 0,
    ) -> None:
        super().__init__(params, locals())

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """Either "matrix", which is any tensor, or with split_qkv also "qkv": three in one."""
        return split_kind(p, name, group) if is_hidden(p, group) else "matrix"

    def flat(self, kind: str) -> bool:
        """Factors belong to sides."""
        return False

    def compiles(self, kind: str) -> bool:
        """Matrix products leave nothing to compile."""
        return False

    def init_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """The momentum, and a factor for each side; that of the right is empty for a vector."""
        return stacked_state(_first_state, p, h)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but checks the shapes of the state (see `check_matrix_state`)."""
        super().load_state_dict(state_dict)
        check_matrix_state(self)

    def update_cost(self, p: Tensor, h: Values) -> float:
        """By the products of u: two for each triangular factor. Fits cost more, but are rare."""
        parts = p.chunk(3) if h["kind"] == "qkv" else [p]
        sides = _as_matrices(parts[0][None]).shape[1:] if p.ndim > 1 else ()
        triangular = sum(n for n in sides if 1 < n <= h["max_triangular"])
        return p.numel() * (1 + 4 * triangular / FLOPS_PER_ELEMENT)

    def advance(self, batches: list[Batch]) -> None:
        """Tensors of equal shape together."""
        for batch in single_matrices(batches):
            with float32_products(batch.h["matmul_dtype"], batch.params[0].device.type):
                self._step(batch)

    def _step(self, batch: Batch) -> None:
        h, step, c = batch.h, batch.step, self.coefficients(batch.h, batch.step)
        fits = step in fitting_steps(
            1 << max(step.bit_length(), 10),
            h["flat_start"],
            h["probability_decay"],
            h["min_probability"],
        )
        for p, g, state in batch.stacks():
            m = state["momentum_buffer"]
            m.lerp_(g.to(m.dtype), 1 - h["beta1"])
            d = _as_matrices(m) / (1 - h["beta1"] ** step)
            if fits:
                v = probe(d.shape[1:], h["seed"], step, d.dtype, d.device)
                d = _fitted(d, v, state["left"], state["right"], h["precond_lr"])
            u = _whitened(d, state["left"], state["right"]).view_as(p)
            p.mul_(c["decay"]).sub_((c["lr"] * u).to(p.dtype))


def probe(
    shape: torch.Size, seed: int, step: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """V: standard normal numbers, the same for the same arguments on the same kind of device."""
    generator = torch.Generator(device).manual_seed(mixed_seed(seed, step, *shape))
    return torch.randn(shape, generator=generator, dtype=dtype, device=device)


@lru_cache(maxsize=16)
def fitting_steps(end: int, flat: int, probability_decay: float, least: float) -> frozenset[int]:
    """The steps from 1 to `end` at which the factors are fitted."""
    steps, last = set(), 0
    for step in range(1, end + 1):
        probability = max(least, math.exp(min(0.0, -probability_decay * (step - 1 - flat))))
        if step - last >= 1 / probability:
            steps.add(step)
            last = step
    return frozenset(steps)


def _first_state(p: Tensor, h: Values) -> dict[str, Tensor]:
    precision = torch.promote_types(p.dtype, torch.float32)
    state = {"momentum_buffer": torch.zeros_like(p, dtype=precision)}
    vector, scale = p.ndim < 2, h["initial_scale"]
    sides = (p.numel(), 0) if vector else _as_matrices(p[None]).shape[1:]
    for name, n in zip(("left", "right"), sides, strict=True):
        diagonal = torch.full(
            (n,), scale if vector else scale**0.5, dtype=precision, device=p.device
        )
        alone = vector or n == 1 or n > h["max_triangular"]
        state[name] = diagonal if alone else diagonal.diag()
    return state


def _as_matrices(x: Tensor) -> Tensor:
    """(b, m, n) of a stack of b tensors of any shape; a vector is a column."""
    return x.reshape(len(x), x.size(1) if x.ndim > 1 else 1, -1)


def _fitted(d: Tensor, v: Tensor, left: Tensor, right: Tensor, rate: float) -> Tensor:
    """Move the factors by one step; returns the damped d, with which it was taken."""
    rates = rate * (d.abs().amax((-2, -1), keepdim=True) > 0).to(d.dtype)
    d = d + _DAMPING * d.abs().mean((-2, -1), keepdim=True) * v
    if right.numel():
        balance = (_largest(right) / _largest(left)).sqrt()
        left.mul_(balance.view(-1, *[1] * (left.ndim - 1)))
        right.div_(balance.view(-1, *[1] * (right.ndim - 1)))
    a = _times(right, _times(left, d).mT).mT
    b = _solved(right, _solved(left, v.expand_as(d)).mT).mT
    for factor, x, y in ((left, a, b), (right, a.mT, b.mT)):
        _move(factor, x, y, rates)
    return d


def _move(factor: Tensor, a: Tensor, b: Tensor, rates: Tensor) -> None:
    """One step of a factor: towards that for which a a^T and b b^T are equal."""
    tiny = torch.finfo(factor.dtype).tiny
    if not factor.numel():
        return
    if factor.ndim == 2:
        one, two = a.square().sum(-1), b.square().sum(-1)
        bound = (one + two).amax(-1, keepdim=True)
        factor.sub_(rates.squeeze(-1) * (one - two) * factor / bound.clamp(min=tiny))
    else:
        one, two = a @ a.mT, b @ b.mT
        bound = _lower_bound(one + two).clamp(min=tiny)
        factor.sub_(rates / bound * (one - two).triu() @ factor)


def _lower_bound(s: Tensor) -> Tensor:
    """Of the largest eigenvalue of each matrix of `s` (b, n, n), symmetric; (b, 1, 1)."""
    tiny = torch.finfo(s.dtype).tiny
    largest = s.abs().amax((-2, -1), keepdim=True)
    s = s / largest.clamp(min=tiny)
    longest = s.square().sum(-2).argmax(-1)
    x = s @ s.take_along_dim(longest[:, None, None], -1)
    x = s @ (x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=tiny))
    return largest * torch.linalg.matrix_norm(x, keepdim=True)


def _whitened(d: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """u, with its root mean square limited."""
    u = _times_transposed(left, _times(left, d))
    u = _times_transposed(right, _times(right, u.mT)).mT
    rms = u.square().mean((-2, -1), keepdim=True).sqrt()
    return u * (_MAX_RMS / (rms + 1e-12)).clamp(max=1)


def _times(factor: Tensor, x: Tensor) -> Tensor:
    """factor x; a diagonal factor has one dimension less, and an empty one is the identity."""
    if not factor.numel():
        return x
    return factor.unsqueeze(-1) * x if factor.ndim == 2 else factor @ x


def _times_transposed(factor: Tensor, x: Tensor) -> Tensor:
    """factor^T x."""
    return factor.mT @ x if factor.ndim == 3 else _times(factor, x)


def _solved(factor: Tensor, x: Tensor) -> Tensor:
    """factor^-T x."""
    if not factor.numel():
        return x
    if factor.ndim == 2:
        return x / factor.unsqueeze(-1)
    return torch.linalg.solve_triangular(factor.mT, x, upper=False)


def _largest(factor: Tensor) -> Tensor:
    """Largest absolute value of each factor; (b,)."""
    return factor.abs().flatten(1).amax(1)
