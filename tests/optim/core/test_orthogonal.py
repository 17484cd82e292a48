"""Orthogonalisation against singular value decompositions and against its plain loop."""

import pytest
import torch

from configs.validation import ConfigError
from optim.core.orthogonal import iterations, orthogonal, orthogonalised

METHODS = ["newton_schulz", "polar_express", "turbo", "polar"]
SHAPES = [(6, 24), (24, 6), (8, 8), (8, 12), (1, 5)]
RANGE = {  # of singular values that were at least a hundredth of the norm
    "newton_schulz": (0.68, 1.14),
    "polar_express": (0.85, 1.15),
    "turbo": (0.97, 1.15),
    "polar": (1 - 1e-12, 1 + 1e-12),
}


def matrix(m, n, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, n, generator=generator, dtype=torch.float64).to(dtype)


def one(x, *args, **kwargs):
    return orthogonal(x[None], *args, **kwargs)[0]


def scaled_rows(x):
    """AOL: each row of a wide matrix over the root of the sum of its products with all rows."""
    return torch.stack([row / (x @ row).abs().sum().sqrt() for row in x])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_moves_singular_values_as_its_polynomials_do(method, m, n):
    x = matrix(m, n)
    wide = x.T if m > n else x
    divided = scaled_rows(wide) if method == "turbo" else wide / wide.norm()
    divided = divided / 1.02 if method == "polar_express" else divided
    u, s, vh = torch.linalg.svd(divided, full_matrices=False)
    for a, b, c in iterations(method, None):
        s = a * s + b * s**3 + c * s**5
    expected = u @ torch.diag(s) @ vh
    assert torch.allclose(one(x, method), expected.T if m > n else expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_singular_values_end_up_near_one(method):
    low, high = RANGE[method]
    values = torch.linalg.svdvals(one(matrix(64, 16), method))
    assert values.min() > low
    assert values.max() < high


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_polar_is_the_polar_factor(m, n):
    u, _, vh = torch.linalg.svd(matrix(m, n), full_matrices=False)
    assert torch.allclose(one(matrix(m, n), "polar"), u @ vh, rtol=0, atol=1e-11)


def test_polar_express_and_turbo_are_nearer_to_the_polar_factor_than_newton_schulz():
    u, _, vh = torch.linalg.svd(matrix(64, 48), full_matrices=False)
    errors = [(one(matrix(64, 48), m) - u @ vh).norm().item() for m in METHODS]
    assert errors[1] < errors[0]
    assert errors[2] < errors[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [1, 4, 5])
@pytest.mark.parametrize(("m", "n"), [(6, 24), (24, 6)])
def test_gram_changes_rounding_only(method, steps, m, n):
    plain, other = (one(matrix(m, n), method, steps, gram=g) for g in (False, True))
    assert not torch.equal(plain, other)
    assert torch.allclose(plain, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
def test_gram_is_as_exact_as_the_plain_form_in_bfloat16(method):
    """Of a matrix whose singular values spread over eight decades, where the square is worst."""
    u, _, vh = torch.linalg.svd(matrix(96, 384), full_matrices=False)
    x = u @ torch.diag(torch.logspace(0, -8, 96, dtype=torch.float64)) @ vh
    exact = one(x, method)
    plain, other = (
        (one(x, method, gram=g, dtype="bfloat16").double() - exact).norm().item()
        for g in (False, True)
    )
    assert other < 1.1 * plain


def test_gram_is_for_long_matrices():
    for m, n in ((8, 8), (8, 12)):
        assert torch.equal(one(matrix(m, n)), one(matrix(m, n), gram=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("normalise_rows", [True, False])
@pytest.mark.parametrize("renormalise", [True, False])
def test_the_scale_is_irrelevant_and_zeros_stay_zero(method, normalise_rows, renormalise):
    given = [matrix(12, 6), matrix(6, 24), torch.zeros(4, 3)]
    given[0][3] = 0  # a dead row
    given[1][:, 2] = 0
    flags = {"normalise_rows": normalise_rows, "renormalise": renormalise}
    results = orthogonalised(given, method, **flags)
    for scale in (1e-4, 1e4):
        scaled = orthogonalised([scale * x for x in given], method, **flags)
        assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(results, scaled, strict=True))
    assert not results[0][3].any()
    assert not results[1][:, 2].any()
    assert not results[2].any()


def test_normalised_rows_weigh_alike():
    """A row that is a thousand times as long as the others changes nothing."""
    x = matrix(8, 20)
    longer = x * torch.tensor([1000.0] + [1.0] * 7, dtype=x.dtype)[:, None]
    pair = [orthogonalised([y], normalise_rows=True)[0] for y in (x, longer)]
    assert torch.allclose(*pair, atol=1e-12)
    rows = x / x.norm(dim=1, keepdim=True)
    assert torch.allclose(pair[0], one(rows), atol=1e-12)


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_renormalised_has_the_norm_of_an_orthogonal_matrix(m, n):
    result = orthogonalised([matrix(m, n)], renormalise=True)[0]
    assert result.norm().item() == pytest.approx(min(m, n) ** 0.5, rel=1e-12)
    plain = one(matrix(m, n))
    assert torch.allclose(result / result.norm(), plain / plain.norm(), atol=1e-12)


def test_a_batch_is_its_matrices_and_keeps_their_dtype():
    given = [matrix(6, 4, seed=i) for i in range(3)] + [matrix(4, 6).to(torch.bfloat16)]
    results = orthogonalised(given)
    for x, result in zip(given, results, strict=True):
        assert result.dtype == x.dtype
        assert torch.allclose(result, orthogonalised([x])[0], atol=1e-12)


def test_the_type_of_the_products_is_that_asked_for():
    """bfloat16 means the same for every type of the gradient; "auto" is exact on a CPU."""
    x = matrix(32, 32)
    half = [one(y, dtype="bfloat16") for y in (x, x.float())]
    assert half[0].dtype == torch.bfloat16
    assert torch.equal(*half)
    assert 1e-4 < (half[0].double() - one(x)).norm() / one(x).norm() < 5e-2
    assert one(x, dtype="float32").dtype == one(x.bfloat16()).dtype == torch.float32
    assert torch.equal(one(x, dtype="tf32"), one(x, dtype="float32"))
    assert one(x).dtype == torch.float64


@pytest.mark.parametrize("method", ["polar_express", "turbo"])
def test_more_steps_than_polynomials_is_an_error(method):
    with pytest.raises(ConfigError, match=f"ns_steps = 6: '{method}' has 5.*give at most 5") as e:
        iterations(method, 6)
    assert "\n" not in str(e.value)
    assert len(iterations(method, 5)) == 5
