"""Aurora against an oracle that takes singular value decompositions, and its balance."""

import pytest
import torch

from optim import build_optimizer
from tests.optim import oracles_matrix as oracles
from tests.optim import oracles_muon

MATRICES = {"tall": (12, 8), "wide": (8, 12), "square": (8, 8), "longer": (24, 4)}
BOTH = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}


@pytest.mark.parametrize(("steps", "power"), [(1, 0.5), (2, 0.5), (3, 0.25)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_equals_the_oracle(steps, power, dtype, tolerance):
    """1e-10: twelve polynomials leave singular values that near to 1."""
    ours = oracles.named_parameters(dtype, MATRICES)
    form = {"balance_steps": steps, "balance_power": power, **BOTH}
    oracles.replay(build_optimizer("aurora", ours.values(), **form), ours)
    start = oracles.named_parameters(dtype, MATRICES)
    theirs = oracles.oracle(
        lambda p: oracles_muon.aurora(p, steps=steps, power=power, **BOTH), start
    )
    assert oracles.distance(ours, theirs) < tolerance


def step(name, shape, dead=None, size=1.0, **values):
    p = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    p.grad = size * oracles.gradient(0, "aurora", p)
    if dead is not None:
        p.grad[dead] = 0
    build_optimizer(name, [p], lr=1.0, weight_decay=0.0, **values).step()
    return p.detach()


def test_a_square_matrix_is_muons():
    muon = step("muon", (8, 8), orthogonalisation="polar", scale="original")
    assert torch.allclose(step("aurora", (8, 8)), muon, atol=1e-12)


@pytest.mark.parametrize(("shape", "dim"), [((24, 6), 1), ((6, 24), 0)])
def test_slices_along_the_long_side_are_nearly_equal(shape, dim):
    """And nearer to it with each step; with Muon they spread."""

    def spread(update):
        lengths = update.norm(dim=dim)
        return ((lengths.max() - lengths.min()) / lengths.mean()).item()

    muon = spread(step("muon", shape, orthogonalisation="polar"))
    spreads = [spread(step("aurora", shape, balance_steps=s)) for s in (1, 2, 8)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[0] < muon / 2
    assert spreads[2] < 0.01


def test_dead_neurons_stay_still_and_the_scale_is_irrelevant():
    update = step("aurora", (24, 6), dead=3)
    assert not update[3].any()
    assert update.isfinite().all()
    for size in (1e-9, 1e6):
        assert torch.allclose(step("aurora", (24, 6), dead=3, size=size), update, atol=1e-9)
