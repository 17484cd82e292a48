"""Shampoo against a slow oracle, and what grafting promises."""

import pytest
import torch

from optim import build_optimizer
from tests.optim import oracles_matrix as oracles

SHAPES = {"tall": (12, 8), "wide": (8, 12), "square": (8, 8), "one": (1, 1)}
BOTH = {"lr": 0.01, "betas": (0.9, 0.8), "eps": 1e-8, "weight_decay": 0.1}


@pytest.mark.parametrize("grafting", ["adam", "none"])
@pytest.mark.parametrize(("every", "start"), [(1, 1), (3, 1), (3, 5)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_the_oracle(every, start, grafting, dtype, tolerance):
    """With an epsilon at which a matrix of low rank has a root in float32."""
    if start == 1 and every > 1:  # for two steps, that root is of one gradient: of low rank
        tolerance *= 100
    ours = oracles.named_parameters(dtype, SHAPES)
    more = {"grafting": grafting, "epsilon": 1e-3}
    optimizer = build_optimizer(
        "shampoo",
        ours.values(),
        precondition_frequency=every,
        start_preconditioning_step=start,
        **BOTH,
        **more,
    )
    oracles.replay(optimizer, ours)
    theirs = oracles.oracle(
        lambda p: oracles.shampoo(p, every=every, start=start, **BOTH, **more),
        oracles.named_parameters(dtype, SHAPES),
    )
    assert oracles.distance(ours, theirs) < tolerance


def test_equals_the_oracle_with_the_published_epsilon():
    """In float64, on square matrices: those of full rank."""
    shapes = {"square": (8, 8), "larger": (12, 12)}
    ours = oracles.named_parameters(shapes=shapes)
    few = {"precondition_frequency": 1, "start_preconditioning_step": 2}
    oracles.replay(build_optimizer("shampoo", ours.values(), epsilon=1e-12, **few, **BOTH), ours)
    theirs = oracles.oracle(
        lambda p: oracles.shampoo(p, every=1, start=2, grafting="adam", epsilon=1e-12, **BOTH),
        oracles.named_parameters(shapes=shapes),
    )
    assert oracles.distance(ours, theirs) < 1e-9


def test_a_grafted_step_is_as_long_as_adams():
    shampoo, adam = (oracles.named_parameters(shapes=SHAPES) for _ in range(2))
    before = {name: p.detach().clone() for name, p in shampoo.items()}
    hyperparameters = {"lr": 0.01, "betas": (0.9, 0.8), "weight_decay": 0.0}
    optimizer = build_optimizer(
        "shampoo", shampoo.values(), start_preconditioning_step=1, **hyperparameters
    )
    oracles.replay(optimizer, shampoo, steps=1)
    oracles.replay(torch.optim.AdamW(adam.values(), **hyperparameters), adam, steps=1)
    for name, p in before.items():
        lengths = [(after[name] - p).norm() for after in (shampoo, adam)]
        assert torch.allclose(*lengths, rtol=1e-9), name


def test_before_its_start_it_is_adamw():
    shampoo, adam = (oracles.named_parameters(shapes=SHAPES) for _ in range(2))
    optimizer = build_optimizer("shampoo", shampoo.values(), start_preconditioning_step=13, **BOTH)
    oracles.replay(optimizer, shampoo)
    oracles.replay(torch.optim.AdamW(adam.values(), **BOTH), adam)
    assert oracles.distance(shampoo, {k: p.detach() for k, p in adam.items()}) < 1e-12


def test_a_long_side_has_no_root_and_the_other_takes_its_exponent():
    named = oracles.named_parameters(shapes={"tall": (12, 8)})
    before = named["tall"].detach().clone()
    optimizer = build_optimizer(
        "shampoo",
        named.values(),
        lr=1.0,
        grafting="none",
        epsilon=0.0,
        start_preconditioning_step=1,
        max_precondition_dim=8,
    )
    oracles.replay(optimizer, named, steps=1)
    update = before - named["tall"]  # g (g^T g)^(-1/2): orthonormal columns
    assert torch.allclose(update.T @ update, torch.eye(8, dtype=update.dtype), atol=1e-9)
