"""Dion against a slow oracle, and the orthonormality of its step."""

import math

import pytest
import torch

from optim import build_optimizer
from optim.core.matrix import random_matrix
from tests.optim import oracles_matrix as oracles

SHAPES = {"tall": (12, 8), "wide": (8, 12), "square": (8, 8), "one": (1, 1)}
BOTH = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("transpose", [True, False])
def test_equals_the_oracle(fraction, transpose, dtype, tolerance):
    ours = oracles.named_parameters(dtype, SHAPES)
    optimizer = build_optimizer(
        "dion", ours.values(), rank_fraction=fraction, transpose=transpose, seed=7, **BOTH
    )
    oracles.replay(optimizer, ours)

    def rule(p):
        r = math.ceil(fraction * min(p.shape))
        turned = transpose and p.shape[0] < p.shape[1]
        q = random_matrix(p.shape[0 if turned else 1], r, 7, 0, dtype, torch.device("cpu"))
        return oracles.dion(p, q=q, transposed=turned, **BOTH)

    theirs = oracles.oracle(rule, oracles.named_parameters(dtype, SHAPES))
    assert oracles.distance(ours, theirs) < tolerance


def test_repeated_gradients_give_the_leading_directions():
    """The power iteration finds the singular vectors, which all get the same weight."""
    u, _ = torch.linalg.qr(oracles.gradient(0, "u", torch.empty(12, 8, dtype=torch.float64)))
    v, _ = torch.linalg.qr(oracles.gradient(0, "v", torch.empty(8, 8, dtype=torch.float64)))
    g = (u * torch.tensor([100.0, 50, 25, 12, 1e-3, 1e-4, 1e-5, 1e-6], dtype=u.dtype)) @ v.T
    p = torch.nn.Parameter(torch.zeros(12, 8, dtype=torch.float64))
    optimizer = build_optimizer("dion", [p], lr=1.0, rank_fraction=0.5, momentum=0.0)
    for _ in range(40):
        p.data.zero_()
        p.grad = g.clone()
        optimizer.step()
    expected = -math.sqrt(12 / 8) * u[:, :4] @ v[:, :4].T
    assert torch.allclose(p, expected, atol=1e-3)


def test_zero_gradients_leave_the_right_factor():
    p = torch.nn.Parameter(torch.ones(6, 4))
    optimizer = build_optimizer("dion", [p])
    p.grad = torch.zeros_like(p)
    optimizer.step()
    state = optimizer.state[p]
    assert torch.equal(state["right_factor"], random_matrix(4, 2, 0, 0, p.dtype, p.device))
    assert torch.isfinite(p).all()


def test_a_matrix_without_gradient_and_momentum_stays_until_it_has_one():
    """As in the authors' code, where P is then 0: projections that start at 0 begin so."""
    p = torch.nn.Parameter(torch.full((6, 4), 0.5))
    optimizer = build_optimizer("dion", [p], lr=0.1, weight_decay=0.0)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.equal(p, torch.full((6, 4), 0.5))
    p.grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    fresh = torch.nn.Parameter(p.detach().clone())
    fresh.grad = p.grad.clone()
    optimizer.step()
    build_optimizer("dion", [fresh], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(p, fresh)
