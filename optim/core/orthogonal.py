"""Orthogonalisation: the singular values of a matrix moved to about 1, by matrix products alone.

Every method divides the matrix by its norm and iterates an odd polynomial,

    x <- a x + b (x x^T) x + c (x x^T)^2 x,

which keeps the singular vectors and moves each singular value s to a s + b s^3 + c s^5.

    newton_schulz  five times (3.4445, -4.7750, 2.0315), steep at 0: an s of at least 0.01 ends
                   within [0.68, 1.14]. Jordan et al. 2024 (kellerjordan.github.io/posts/muon)
    polar_express  five polynomials, each the best one for where the one before has left s, with a
                   safety of 2 %: from 0.001 on within [0.84, 1.15]. Amsel et al., arXiv:2505.16932
    turbo          rows are first divided by the root of the sum of |x x^T| (AOL), which brings s
                   nearer to 1 and saves one of five steps: from 0.01 on within [0.97, 1.15].
                   Boissin et al., "Turbo-Muon", arXiv:2512.04632
    polar          twelve times (2, -1.5, 0.5): from 0.001 on within 5e-6 of 1. Track 3 of
                   KellerJordan/modded-nanogpt, and Aurora
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from configs.validation import ConfigError
from optim.core.batch import Tensors

Method = Literal["newton_schulz", "polar_express", "turbo", "polar"]
ProductDtype = Literal["auto", "float32", "tf32", "bfloat16"]

ALONE = 16  # rows or columns; torch asks oneDNN for products above 16 x 16 x 16 in all
SMALLEST_NORM = 1e-7
_SAFETY = 1.02  # of polar_express: its polynomials were made for s up to 1 / 1.02


class _Coefficients(NamedTuple):
    a: float
    b: float
    c: float


_JORDAN = _Coefficients(3.4445, -4.7750, 2.0315)
_POLAR = _Coefficients(2.0, -1.5, 0.5)
_POLAR_EXPRESS = (
    _Coefficients(8.156554524902461, -22.48329292557795, 15.878769915207462),
    _Coefficients(4.042929935166739, -2.808917465908714, 0.5000178451051316),
    _Coefficients(3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    _Coefficients(3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    _Coefficients(2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
_TURBO = (
    _Coefficients(4.0848, -6.8946, 2.9270),
    _Coefficients(3.9505, -6.3029, 2.6377),
    _Coefficients(3.7418, -5.5913, 2.3037),
    _Coefficients(2.8769, -3.1427, 1.2046),
    _Coefficients(2.8366, -3.0525, 1.2012),
)


def iterations(method: Method, steps: int | None) -> tuple[_Coefficients, ...]:
    """The coefficients of each iteration; `steps` None means as many as published.

    Raises:
        ConfigError: the method has fewer polynomials; one line.
    """
    if method == "newton_schulz":
        return (_JORDAN,) * (steps or 5)
    if method == "polar":
        return (_POLAR,) * (steps or 12)
    known, published = (_POLAR_EXPRESS, 5) if method == "polar_express" else (_TURBO, 4)
    steps = steps or published
    if steps > len(known):
        raise ConfigError(
            f"optimizer.ns_steps = {steps}: '{method}' has {len(known)} polynomials; give at most"
            f" {len(known)}, or none for the {published} that are published"
        )
    return known[:steps] if method == "polar_express" else known[-steps:]


def orthogonalised(
    tensors: Tensors,
    method: Method = "newton_schulz",
    steps: int | None = None,
    *,
    gram: bool = False,
    dtype: ProductDtype = "auto",
    normalise_rows: bool = False,
    renormalise: bool = False,
) -> Tensors:
    """`orthogonal` for each matrix, in batches of equal shape; results keep the matrix's dtype.

    A matrix's bits do not depend on what else is in its batch.

    normalise_rows: give the rows of a matrix equal length before (Chang et al., "MuonEq",
    arXiv:2603.28254). renormalise: give the result the norm of an orthogonal matrix, sqrt(min(m,
    n)), after ("Muon+", arXiv:2602.21545).
    """
    alike: dict[tuple[torch.Size, int | None], list[int]] = {}
    for i, t in enumerate(tensors):
        # on a CPU the number of tiny matrices decides which library multiplies them
        alone = t.device.type == "cpu" and min(t.shape) <= ALONE
        alike.setdefault((t.shape, i if alone else None), []).append(i)
    results = list(tensors)
    for indices in alike.values():
        x = torch.stack([tensors[i] for i in indices])
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        x = _equal_rows(x) if normalise_rows else x
        x = orthogonal(x, method, steps, gram=gram, dtype=dtype)
        if renormalise:
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            norm = torch.linalg.matrix_norm(x, keepdim=True).clamp(min=SMALLEST_NORM)
            x = x * (math.sqrt(min(x.shape[-2:])) / norm)
        for i, result in zip(indices, x, strict=True):
            results[i] = result.to(tensors[i].dtype)
    return results


def orthogonal(
    x: Tensor,
    method: Method = "newton_schulz",
    steps: int | None = None,
    *,
    gram: bool = False,
    dtype: ProductDtype = "auto",
) -> Tensor:
    """Move the singular values of each matrix of `x` (batch, m, n) to about 1.

    gram: of a matrix twice as long as wide, iterate on the small x x^T instead of on x. The result
    is the same up to rounding; a 4 to 1 matrix takes 70/90 of the operations (Zhang, Amsel, Chen &
    Dao 2026, dao-lab.ai/blog/2026/gram-newton-schulz). They restart from x once, after two
    iterations, in float16; here after every two, so that bfloat16 is as exact as without.

    dtype: of the products. "auto" is bfloat16 on a GPU, several times as fast and precise enough,
    and at least float32 elsewhere. "tf32" is float32 whose factors a GPU may round.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    norm = torch.linalg.matrix_norm(x, keepdim=True).clamp(min=SMALLEST_NORM)
    x = x / (norm * _SAFETY if method == "polar_express" else norm)
    if dtype != "auto":
        x = x.to(torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    elif x.is_cuda and x.dtype == torch.float32:
        x = x.bfloat16()
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    square = x @ x.mT
    if method == "turbo":
        sums = square.to(torch.promote_types(square.dtype, torch.float32)).abs().sum(-1, True)
        scale = sums.clamp(min=SMALLEST_NORM**2).rsqrt()
        x, square = (x * scale).to(x.dtype), (square * scale * scale.mT).to(x.dtype)
    polynomials = iterations(method, steps)
    if gram and x.size(-1) >= 2 * x.size(-2):
        x = _in_pairs(x, square, polynomials)
    else:
        for i, one in enumerate(polynomials):
            square = x @ x.mT if i else square
            x = torch.baddbmm(x, _even_part(square, one), x, beta=one.a)
    return x.mT if tall else x


def _equal_rows(x: Tensor) -> Tensor:
    """Rows of each matrix of `x` (batch, m, n) scaled to one length; the norm stays.

    A row shorter than 1e-7 of the norm is scaled as if it had that length.
    """
    norm = torch.linalg.matrix_norm(x, keepdim=True)
    rows = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    floor = (SMALLEST_NORM * norm).clamp(min=torch.finfo(x.dtype).tiny)
    return x * (norm / math.sqrt(x.size(-2)) / torch.maximum(rows, floor))


def _even_part(square: Tensor, one: _Coefficients) -> Tensor:
    """b r + c r^2, by which an iteration multiplies x, apart from a x."""
    return torch.baddbmm(square, square, square, beta=one.b, alpha=one.c)


def _in_pairs(x: Tensor, square: Tensor, polynomials: tuple[_Coefficients, ...]) -> Tensor:
    """The iterations on x, two by two, with one product of the size of x for each two."""
    identity = torch.eye(x.size(-2), dtype=x.dtype, device=x.device)
    for i in range(0, len(polynomials), 2):
        one, *two = polynomials[i : i + 2]
        square = x @ x.mT if i else square
        even = _even_part(square, one)
        factor = even + one.a * identity
        for other in two:  # the square of what `factor` would make of x: all of these commute
            half = torch.baddbmm(square, square, even, beta=one.a)
            square = torch.baddbmm(half, even, half, beta=one.a)
            factor = torch.baddbmm(factor, factor, _even_part(square, other), beta=other.a)
        x = factor @ x
    return x
