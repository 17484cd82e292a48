"""SOAP against pytorch_optimizer's, a slow oracle, and AdamW in a fixed basis."""

import pytest
import pytorch_optimizer
import torch

from optim import build_optimizer
from tests.optim import oracles_matrix as oracles

SQUARES = {"square": (8, 8), "larger": (12, 12), "one": (1, 1)}
BOTH = {"lr": 0.01, "betas": (0.9, 0.8), "shampoo_beta": 0.7, "weight_decay": 0.1}


@pytest.mark.parametrize("every", [1, 3, 10])
def test_equals_the_oracle(every):
    """Square matrices: for others, the basis of the first gradient's null space is arbitrary."""
    ours = oracles.named_parameters(shapes=SQUARES)
    oracles.replay(
        build_optimizer("soap", ours.values(), precondition_frequency=every, **BOTH), ours
    )
    theirs = oracles.oracle(
        lambda p: oracles.soap(p, eps=1e-8, every=every, **BOTH),
        oracles.named_parameters(shapes=SQUARES),
    )
    assert oracles.distance(ours, theirs) < 1e-12


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_equals_the_package(dtype, tolerance):
    """The package takes the QR in float32."""
    ours, theirs = (oracles.named_parameters(dtype, SQUARES) for _ in range(2))
    oracles.replay(build_optimizer("soap", ours.values(), precondition_frequency=3, **BOTH), ours)
    package = pytorch_optimizer.SOAP(theirs.values(), precondition_frequency=3, **BOTH)
    oracles.replay(package, theirs)
    assert oracles.distance(ours, {k: p.detach() for k, p in theirs.items()}) < tolerance


def test_without_rotation_it_is_adamw_one_step_later():
    named = oracles.named_parameters(shapes={"tall": (12, 8)})
    same = oracles.named_parameters(shapes={"tall": (12, 8)})
    hyperparameters = {"lr": 0.01, "betas": (0.9, 0.8), "weight_decay": 0.0}
    soap = build_optimizer(
        "soap", named.values(), max_precondition_dim=1, eps=1e-30, **hyperparameters
    )
    adamw = torch.optim.AdamW(same.values(), eps=1e-30, **hyperparameters)
    for step in range(12):
        for name, p in named.items():
            p.grad = oracles.gradient(step, name, p)
            same[name].grad = p.grad.clone()
        soap.step()
        if step:
            adamw.step()
    assert oracles.distance(named, {k: p.detach() for k, p in same.items()}) < 1e-12


def test_one_long_side_is_not_rotated():
    named = oracles.named_parameters(shapes={"tall": (12, 8)})
    optimizer = build_optimizer("soap", named.values(), max_precondition_dim=8)
    oracles.replay(optimizer, named)
    state = optimizer.state[named["tall"]]
    assert state["left"].numel() == 0
    basis = state["right_basis"]
    assert torch.allclose(basis.T @ basis, torch.eye(8, dtype=basis.dtype), atol=1e-12)


def test_the_first_step_only_looks():
    named = oracles.named_parameters(shapes=SQUARES)
    before = {name: p.detach().clone() for name, p in named.items()}
    optimizer = build_optimizer("soap", named.values(), weight_decay=0.1)
    oracles.replay(optimizer, named, steps=1)
    assert all(torch.equal(before[name], p) for name, p in named.items())


def test_the_scale_of_the_gradient_is_irrelevant():
    small, large = (oracles.named_parameters(shapes=SQUARES) for _ in range(2))
    oracles.replay(build_optimizer("soap", small.values(), eps=1e-30), small, scale=1e-3)
    oracles.replay(build_optimizer("soap", large.values(), eps=1e-30), large, scale=1e3)
    assert oracles.distance(small, {k: p.detach() for k, p in large.items()}) < 1e-8
