"""KL-SOAP and KL-Shampoo against a slow oracle, and where their second moments are degenerate."""

import functools

import pytest
import torch

from optim import build_optimizer, optimizer_state_bytes
from tests.optim import oracles_whitening

BOTH = {"lr": 0.01, "betas": (0.9, 0.8), "shampoo_beta": 0.7, "eps": 1e-8, "weight_decay": 0.1}


@pytest.mark.parametrize("every", [1, 3, 10])
@pytest.mark.parametrize("variant", ["soap", "shampoo"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_the_oracle(variant, every, dtype, tolerance):
    """Against the authors' own code, in float64: 5e-15."""
    more = {"variant": variant, **BOTH}
    rule = functools.partial(oracles_whitening.kl_soap, every=every, **more)
    more["precondition_frequency"] = every
    assert oracles_whitening.distance_of("kl_soap", rule, dtype, tolerance, **more) < tolerance


def one(gradients, dtype=torch.float32, **hyperparameters):
    """A matrix after a step with each of the gradients, and its state."""
    p = torch.nn.Parameter(torch.ones(gradients[0].shape, dtype=dtype))
    optimizer = build_optimizer("kl_soap", [p], **hyperparameters)
    for g in gradients:
        p.grad = g.to(dtype)
        optimizer.step()
    return p, optimizer.state[p]


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_bases_of_a_factor_without_full_rank_are_orthonormal(rank):
    """12 x 6 gradients of this rank, in float32: L has a null space of at least six dimensions."""
    generator = torch.Generator().manual_seed(1)
    left = torch.randn(12, rank, generator=generator)
    gradients = [left @ torch.randn(rank, 6, generator=generator) for _ in range(8)]
    p, state = one(gradients, precondition_frequency=1)
    for side, n in (("left", 12), ("right", 6)):
        basis = state[f"{side}_basis"]
        assert torch.allclose(basis.T @ basis, torch.eye(n), atol=1e-5)
    assert torch.isfinite(p).all()


def test_a_decomposition_that_fails_in_float32_is_taken_in_float64(monkeypatch):
    gradients = [torch.randn(6, 6, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    expected, _ = one(gradients)
    decompose, seen = torch.linalg.eigh, []

    def fails_in_float32(matrix):
        seen.append(matrix.dtype)
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("did not converge")
        return decompose(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", fails_in_float32)
    found, _ = one(gradients)
    assert seen == 2 * [torch.float32, torch.float64]
    assert torch.allclose(found, expected, atol=1e-6)


def test_eigenvalues_of_a_matrix_without_gradients_stop_at_their_floor():
    """1 / max(10, min(length, max_inverse_root))^2, from 0.1 in steps of shampoo_beta."""
    zeros = 40 * [torch.zeros(16, 4, dtype=torch.float64)]
    for limit, left in ((4000.0, 16), (12.0, 12), (1.0, 10)):
        p, state = one(zeros, torch.float64, shampoo_beta=0.5, max_inverse_root=limit)
        assert torch.allclose(state["left_values"], torch.tensor(left**-2.0).double(), rtol=1e-12)
        assert torch.allclose(state["right_values"], torch.tensor(0.01).double(), rtol=1e-12)
        assert torch.isfinite(p).all()


def test_a_gaussian_with_a_kronecker_covariance_is_found():
    """The fixed point: E[L] = tr(S_c^-1 C) / n A for gradients with covariance A x C."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    columns = torch.tensor([3.0, 1.0, 1 / 3], dtype=torch.float64)
    noise = torch.randn(4000, 4, 3, generator=generator, dtype=torch.float64)
    gradients = list(rows.sqrt()[:, None] * noise * columns.sqrt())
    _, state = one(gradients, torch.float64, lr=0.0, shampoo_beta=0.998, precondition_frequency=1)
    found = torch.outer(state["left_values"], state["right_values"])
    assert torch.allclose(found, torch.outer(rows, columns), rtol=0.25)


def test_kl_shampoo_keeps_no_second_moment_of_elements():
    generator = torch.Generator().manual_seed(3)
    for variant, moments in (("soap", 2), ("shampoo", 1)):
        p = torch.nn.Parameter(torch.ones(6, 4))
        optimizer = build_optimizer("kl_soap", [p], variant=variant)
        p.grad = torch.randn(6, 4, generator=generator)
        optimizer.step()
        numbers = moments * 24 + 2 * (36 + 16) + 6 + 4
        assert optimizer_state_bytes(optimizer) == 4 * numbers


def test_the_first_step_only_looks():
    p, _ = one([torch.ones(3, 3)], weight_decay=0.1)
    assert torch.equal(p, torch.ones(3, 3))
