"""Dion2 against an oracle that takes a slice at a time, and what waiting rows do."""

import pytest
import torch

from optim import build_optimizer
from tests.optim import oracles_matrix as oracles
from tests.optim import oracles_muon

MATRICES = {"tall": (12, 8), "wide": (8, 12), "square": (8, 8), "one": (1, 1)}
BOTH = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}


@pytest.mark.parametrize("fraction", [0.25, 0.3, 1.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_the_oracle(fraction, dtype, tolerance):
    form = {"fraction": fraction, **BOTH}
    ours = oracles.named_parameters(dtype, MATRICES)
    oracles.replay(build_optimizer("dion2", ours.values(), **form), ours)
    start = oracles.named_parameters(dtype, MATRICES)
    theirs = oracles.oracle(lambda p: oracles_muon.dion2(p, **form), start)
    assert oracles.distance(ours, theirs) < tolerance


@pytest.mark.parametrize(("shape", "dim"), [((8, 20), 1), ((20, 8), 0)])
def test_only_a_fraction_of_the_shorter_side_moves_and_all_take_their_turn(shape, dim):
    p = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    values = {"lr": 1.0, "fraction": 0.25, "momentum": 0.0, "weight_decay": 0.0}
    optimizer = build_optimizer("dion2", [p], **values)
    moved = torch.zeros(8, dtype=torch.int64)
    for _ in range(24):
        before = p.detach().clone()
        p.grad = torch.ones_like(p) * torch.arange(1.0, 9.0).view((8, 1) if dim else (1, 8))
        p.grad += 0.1 * oracles.gradient(0, "slices", p)
        optimizer.step()
        chosen = (p - before).abs().sum(dim) > 0
        assert chosen.sum() == 2
        moved += chosen
    assert moved.min() >= 1, "what waits grows until it is chosen"


def test_a_row_that_waits_keeps_its_gradients_whole():
    p = torch.nn.Parameter(torch.zeros(4, 6, dtype=torch.float64))
    optimizer = build_optimizer("dion2", [p], fraction=0.25, momentum=0.5)
    total = torch.zeros_like(p)
    for step in range(3):
        p.grad = oracles.gradient(step, "rows", p)
        p.grad[0] *= 100
        total += p.grad
        optimizer.step()
    buffer = optimizer.state[p]["momentum_buffer"]
    assert torch.equal(buffer[1:], total[1:])
    assert not torch.allclose(buffer[0], total[0])
