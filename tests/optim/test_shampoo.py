"""Shampoo against a slow oracle, and what grafting promises."""

import pytest
import torch

from optim import build_optimizer, optimizer_state_bytes
from tests.optim import oracles_matrix as oracles

SHAPES = {"tall": (12, 8), "wide": (8, 12), "square": (8, 8), "one": (1, 1)}
BOTH = {"lr": 0.01, "betas": (0.9, 0.8), "eps": 1e-8, "weight_decay": 0.1}


@pytest.mark.parametrize("grafting", ["adam", "none"])
@pytest.mark.parametrize(("every", "start"), [(1, 1), (3, 1), (3, 5)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_the_oracle(every, start, grafting, dtype, tolerance):
    """With an epsilon for which a matrix of low rank has a root in float32."""
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


@pytest.mark.parametrize("grafting", ["adam", "none"])
def test_each_block_of_a_long_matrix_is_a_matrix_of_its_own(grafting):
    """12 x 8 in blocks of 5 (sides 5, 5, 2 and 5, 3) against the oracle on each block alone."""
    shapes = {"tall": (12, 8), "wide": (3, 11), "short": (4, 4)}
    named = oracles.named_parameters(shapes=shapes)
    more = {"grafting": grafting, "epsilon": 1e-3, **BOTH}
    optimizer = build_optimizer(
        "shampoo",
        named.values(),
        max_precondition_dim=5,
        precondition_frequency=3,
        start_preconditioning_step=2,
        **more,
    )
    starts = {name: p.detach().clone() for name, p in named.items()}
    oracles.replay(optimizer, named)
    checked = 0
    for name, p in named.items():
        rows, columns = p.shape
        for top in range(0, rows, 5):
            for left in range(0, columns, 5):
                where = (slice(top, top + 5), slice(left, left + 5))
                rule = oracles.shampoo(starts[name][where].clone(), every=3, start=2, **more)
                next(rule)
                for step in range(12):
                    expected = rule.send(oracles.gradient(step, name, p)[where])
                torch.testing.assert_close(p.detach()[where], expected, rtol=1e-9, atol=1e-11)
                checked += p[where].numel()
    assert checked == sum(p.numel() for p in named.values())


def test_blocks_keep_less_state():
    """Two 4 x 4 blocks with 16 numbers per side, in place of sides with 64 and 16; two moments."""
    for longest, squares in ((4, 2 * (16 + 16)), (8, 64 + 16)):
        named = oracles.named_parameters(torch.float32, {"tall": (8, 4)})
        optimizer = build_optimizer("shampoo", named.values(), max_precondition_dim=longest)
        oracles.replay(optimizer, named, steps=1)
        assert optimizer_state_bytes(optimizer) == 4 * (2 * 32 + 2 * squares)
