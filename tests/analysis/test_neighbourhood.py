"""The highest loss nearby against closed forms, and against the optimizer of Keskar et al."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from analysis.loss import Loss
from analysis.neighbourhood import Subspace, adaptive, highest, keskar
from tests.analysis.test_curvature import small_gpt

W, SLOPE = torch.tensor([0.5, -2.0, 0.0]), torch.tensor([3.0, -1.0, -4.0])


def linear(offset=0.0):
    w = torch.nn.Parameter(W.clone())
    return Loss([w], [lambda: SLOPE @ w + offset])


def test_a_linear_loss_is_highest_in_a_corner():
    loss = linear()
    value = 3 * 0.5 + 2
    rise = 0.01 * (3 * 1.5 + 1 * 3 + 4 * 1)
    assert keskar(loss, 0.01, 5) == pytest.approx(100 * rise / (1 + value), rel=1e-4)
    assert adaptive(loss, 0.01, 5) == pytest.approx(0.01 * (3 * 0.5 + 1 * 2), rel=1e-4)
    assert torch.equal(loss.weights, W)


def test_a_convex_loss_is_highest_in_the_corner_that_lies_farthest():
    w = torch.nn.Parameter(W.clone())
    loss = Loss([w], [lambda: (torch.tensor([1.0, 2.0, 5.0]) * w**2).sum()])
    reach = torch.tensor([0.1, 0.2, 0.0])
    _, top = highest(loss, reach, 10)
    assert top == pytest.approx(0.6**2 + 2 * 2.2**2, rel=1e-5)


def test_a_maximum_inside_the_box_is_found():
    w = torch.nn.Parameter(torch.zeros(1))
    loss = Loss([w], [lambda: -((w - 0.3) ** 2).sum()])
    start, top = highest(loss, torch.ones(1), 20)
    assert start == pytest.approx(-0.09)
    assert -1e-3 < top <= 0


def test_a_loss_that_overflows_nearby_is_not_the_highest():
    w = torch.nn.Parameter(torch.zeros(1))
    loss = Loss([w], [lambda: torch.where(w > 0.6, math.inf, w).sum()])
    start, top = highest(loss, torch.ones(1), 20)
    assert start == 0
    assert 0.4 < top < 0.61


def test_a_subspace_has_orthogonal_columns_of_unit_variance_and_their_pseudo_inverse():
    like = torch.zeros(4000)
    subspace = Subspace.drawn(like, 5, seed=1)
    columns = torch.stack([subspace.lifted(y) for y in torch.eye(5)], dim=1).double()
    gram = columns.T @ columns
    assert torch.equal(gram, torch.diag(gram.diag()))
    assert columns.var(dim=0).mean().item() == pytest.approx(1, rel=0.01)
    x = torch.randn(4000, generator=torch.Generator().manual_seed(2))
    exact = torch.linalg.pinv(columns) @ x.double()
    torch.testing.assert_close(subspace.coordinates(x).double(), exact, rtol=1e-4, atol=1e-6)
    back = (columns.T @ x.double()).float()
    torch.testing.assert_close(subspace.restricted(x), back, rtol=1e-4, atol=1e-3)


def test_in_a_subspace_a_linear_loss_rises_by_what_its_directions_allow():
    subspace = Subspace(torch.tensor([0, 1, 0]), torch.tensor([1.0, -1.0, 1.0]), 2)
    value = 3.5 + 10
    along, reach = [3 - 4, 1], [0.01 * (abs(0.5 + 0) / 2 + 1), 0.01 * (2 + 1)]
    rise = sum(abs(a) * r for a, r in zip(along, reach, strict=True))
    found = keskar(linear(offset=10), 0.01, 5, subspace)
    assert found == pytest.approx(100 * rise / (1 + value), rel=1e-3)


def test_ascent_finds_what_the_papers_optimizer_finds():
    """L-BFGS-B on a small GPT, in a box in which its loss is far from linear."""
    model, batch = small_gpt()
    loss = Loss.of(model, batch, rows=3)
    middle = loss.weights
    reach = 0.05 * (middle.abs() + 1)

    def downhill(z):
        loss.put(middle + torch.from_numpy(z).float())
        value, gradient = loss.gradient()
        return -value, -gradient.double().numpy()

    bounds = [(-r, r) for r in reach.tolist()]
    theirs = -minimize(downhill, np.zeros(len(bounds)), jac=True, bounds=bounds, method="L-BFGS-B",
                       options={"maxiter": 10}).fun  # fmt: skip
    loss.put(middle)
    start, ours = highest(loss, reach, 20)
    assert ours - start > 0.97 * (theirs - start) > 1
