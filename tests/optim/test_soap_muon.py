"""SOAP-Muon against a slow oracle, Muon, and what diagonal gradients make of its second moment."""

import functools

import pytest
import torch

from optim import build_optimizer
from tests.optim import oracles_matrix, oracles_whitening

BOTH = {"lr": 0.02, "momentum": 0.9, "beta2": 0.8, "shampoo_beta": 0.7, "weight_decay": 0.1}


@pytest.mark.parametrize("every", [1, 3, 10])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
def test_equals_the_oracle(every, dtype, tolerance):
    """The first whitened update has elements of one size: its smallest singular values are noise.

    Against record 44's functions, in float64: 6e-15, on the same orthogonalisation; against
    record 14's, which adds eps to the root: 4e-5.
    """
    rule = functools.partial(oracles_whitening.soap_muon, eps=1e-8, every=every, **BOTH)
    more = {"scale": "original", "orthogonalisation": "newton_schulz", **BOTH}
    more["precondition_frequency"] = every
    assert oracles_whitening.distance_of("soap_muon", rule, dtype, tolerance, **more) < tolerance


@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
def test_the_first_step_is_muons(scale):
    both = {"lr": 0.02, "scale": scale, "weight_decay": 0.1, "orthogonalisation": "polar"}
    ours, muons = (
        oracles_matrix.named_parameters(torch.float32, oracles_whitening.SHAPES) for _ in range(2)
    )
    oracles_matrix.replay(build_optimizer("soap_muon", ours.values(), **both), ours, 1)
    oracles_matrix.replay(build_optimizer("muon", muons.values(), **both), muons, 1)
    assert oracles_matrix.distance(ours, {k: p.detach() for k, p in muons.items()}) < 1e-6


def test_the_second_moment_follows_the_columns_of_its_bases():
    """Diagonal gradients have the unit vectors as bases, whose order changes as their sizes do.

    Back in the order of rows and columns, v is the average of u^2, whatever the order was.
    """
    p = torch.nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
    optimizer = build_optimizer(
        "soap_muon", [p], momentum=0.5, beta2=0.8, shampoo_beta=0.1, precondition_frequency=1
    )
    sizes = ([3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0], [3.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    b, v, orders = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), set()
    for step, size in enumerate(sizes):
        g = torch.tensor(size, dtype=torch.float64)
        p.grad = g.diag()
        optimizer.step()
        b = 0.5 * b + 0.5 * g
        u = 0.5 * b + 0.5 * g
        v = 0.8 * v + 0.2 * u**2 if step else v
        state = optimizer.state[p]
        left, right = state["left_basis"].abs(), state["right_basis"].abs()
        assert torch.allclose(left @ state["exp_avg_sq"] @ right.T, v.diag(), atol=1e-12)
        orders.add(tuple(left.argmax(0).tolist()))
    assert len(orders) > 2, "the order has changed"


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_bases_of_a_factor_without_full_rank_are_orthonormal(rank):
    generator = torch.Generator().manual_seed(1)
    left = torch.randn(12, rank, generator=generator)
    p = torch.nn.Parameter(torch.ones(12, 6))
    optimizer = build_optimizer("soap_muon", [p], precondition_frequency=1)
    for _ in range(8):
        p.grad = left @ torch.randn(rank, 6, generator=generator)
        optimizer.step()
    for side, n in (("left", 12), ("right", 6)):
        basis = optimizer.state[p][f"{side}_basis"]
        assert torch.allclose(basis.T @ basis, torch.eye(n), atol=1e-5)
    assert torch.isfinite(p).all()


def test_the_scale_of_the_gradient_is_irrelevant():
    squares = {"square": (8, 8), "larger": (12, 12)}
    small, large = (oracles_matrix.named_parameters(shapes=squares) for _ in range(2))
    for named, scale in ((small, 1e-3), (large, 1e3)):
        optimizer = build_optimizer("soap_muon", named.values(), eps=1e-30)
        oracles_matrix.replay(optimizer, named, scale=scale)
    assert oracles_matrix.distance(small, {k: p.detach() for k, p in large.items()}) < 1e-8
