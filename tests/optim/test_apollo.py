"""APOLLO against a slow oracle with its projections, and its limits."""

import itertools

import pytest
import torch

from configs.validation import ConfigError
from optim import build_optimizer
from optim.core.matrix import random_matrix
from tests.optim import oracles_matrix as oracles

SHAPES = {"tall": (12, 8), "wide": (8, 12), "square": (8, 8)}
BOTH = {"lr": 0.01, "betas": (0.9, 0.8), "eps": 1e-6, "weight_decay": 0.1}


@pytest.mark.parametrize(("rank", "scaling", "scale"), [(3, "channel", 1.0), (1, "tensor", 128.0)])
@pytest.mark.parametrize("gap", [5, 200])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_equals_the_oracle(rank, scaling, scale, gap, dtype, tolerance):
    """The package has no epsilon in the ratios of norms."""
    ours = oracles.named_parameters(dtype, SHAPES)
    both = {**BOTH, "rank": rank, "scaling": scaling, "scale": scale}
    optimizer = build_optimizer("apollo", ours.values(), update_gap=gap, seed=3, **both)
    oracles.replay(optimizer, ours)

    def projection(rows, columns, epoch):
        return random_matrix(rows, columns, 3, epoch, dtype, torch.device("cpu"))

    theirs = oracles.oracle(
        lambda p: oracles.apollo(p, gap=gap, limit=1.01, projection=projection, **both),
        oracles.named_parameters(dtype, SHAPES),
    )
    assert oracles.distance(ours, theirs) < tolerance


def test_random_matrices_depend_on_their_arguments_only():
    device = torch.device("cpu")
    one = random_matrix(4, 6, 0, 0, torch.float32, device).clone()
    random_matrix.cache_clear()
    torch.manual_seed(5)
    assert torch.equal(one, random_matrix(4, 6, 0, 0, torch.float32, device))
    others = [
        random_matrix(4, 6, 1, 0, torch.float32, device),
        random_matrix(4, 6, 0, 1, torch.float32, device),
        random_matrix(6, 4, 0, 0, torch.float32, device).view(4, 6),
    ]
    assert not any(torch.equal(one, other) for other in others)
    many = random_matrix(300, 300, 0, 0, torch.float64, device)
    assert abs(many.mean().item()) < 0.02
    assert abs(many.var().item() - 1) < 0.02


def test_a_zero_gradient_does_not_freeze_the_matrix():
    named = oracles.named_parameters(shapes={"square": (8, 8)})
    p = named["square"]
    optimizer = build_optimizer("apollo", named.values(), rank=4)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    before = p.detach().clone()
    p.grad = oracles.gradient(0, "square", p)
    optimizer.step()
    assert (p - before).abs().max() > 1e-4


def test_the_limit_on_growth_limits():
    named = oracles.named_parameters(shapes={"square": (8, 8)})
    p = named["square"]
    optimizer = build_optimizer("apollo", named.values(), rank=4, betas=(0.0, 0.999))
    norms = []
    for step in range(4):
        p.grad = oracles.gradient(step, "square", p) * 100.0**step
        optimizer.step()
        norms.append(optimizer.state[p]["norm"].item())
    ratios = [after / before for before, after in itertools.pairwise(norms)]
    assert max(ratios) == pytest.approx(1.01, rel=1e-6)


def test_a_limit_below_one_is_refused():
    with pytest.raises(ConfigError, match=r"growth_limit = 0.5: should be at least 1"):
        build_optimizer("apollo", [torch.nn.Parameter(torch.ones(2, 2))], growth_limit=0.5)
