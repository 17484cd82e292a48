"""Muown against an oracle that keeps V, and its rows."""

import pytest
import torch

from optim import build_optimizer
from tests.optim import oracles_matrix as oracles
from tests.optim import oracles_muon

MATRICES = {"tall": (12, 8), "wide": (8, 12), "square": (8, 8)}
BOTH = {"lr": 0.02, "momentum": 0.9, "betas": (0.8, 0.9), "eps": 1e-8}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_equals_the_oracle(weight_decay, dtype, tolerance):
    form = {"weight_decay": weight_decay, **BOTH}
    ours = oracles.named_parameters(dtype, MATRICES)
    oracles.replay(build_optimizer("muown", ours.values(), **form), ours)
    start = oracles.named_parameters(dtype, MATRICES)
    theirs = oracles.oracle(lambda p: oracles_muon.muown(p, **form), start)
    assert oracles.distance(ours, theirs) < tolerance


def built(p, **values):
    return build_optimizer("muown", [p], **{"lr": 0.02, **values})


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_row_lengths_of_the_state_are_those_of_the_weights(weight_decay):
    named = oracles.named_parameters(shapes={"c_fc": (12, 8)})
    optimizer = built(named["c_fc"], weight_decay=weight_decay)
    oracles.replay(optimizer, named)
    state = optimizer.state[named["c_fc"]]
    lengths = named["c_fc"].detach().norm(dim=1, keepdim=True)
    assert torch.allclose(state["row_length"].abs(), lengths, rtol=1e-12)
    assert not torch.allclose(state["direction_length"], lengths, rtol=1e-3)


def test_a_gradient_along_the_rows_moves_their_lengths_only():
    p = torch.nn.Parameter(oracles.named_parameters(shapes={"p": (6, 10)})["p"].detach())
    before = p.detach().clone()
    p.grad = before.clone()
    built(p).step()
    moved = p.detach() / before
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), rtol=1e-6)
    lengths = before.norm(dim=1) - p.detach().norm(dim=1)
    assert torch.allclose(lengths, torch.full_like(lengths, 0.02), rtol=1e-4), "Adam's first step"


def test_a_gradient_across_the_rows_keeps_their_lengths():
    p = torch.nn.Parameter(oracles.named_parameters(shapes={"p": (6, 10)})["p"].detach())
    before = p.detach().clone()
    g = oracles.gradient(0, "across", before)
    p.grad = g - (g * before).sum(1, True) / before.square().sum(1, True) * before
    built(p, eps=1.0).step()  # without eps Adam would blow rounding up to a step
    assert torch.allclose(p.norm(dim=1), before.norm(dim=1), rtol=1e-12)
    assert not torch.allclose(p, before, rtol=1e-2)


def test_rows_of_zeros_begin_to_move():
    """Zero-initialised projections; the published code divides 0 by 0."""
    p = torch.nn.Parameter(torch.zeros(4, 6, dtype=torch.float64))
    target = oracles.gradient(0, "target", p)
    optimizer = built(p, lr=0.01)
    losses = []
    for _ in range(300):
        losses.append((p - target).square().sum().item())
        p.grad = 2 * (p.detach() - target)
        optimizer.step()
        assert p.isfinite().all()
    assert losses[-1] < 0.1 * losses[0]


def test_a_checkpoint_has_one_length_and_its_moments_for_each_row():
    """direction_length cannot be read off the weights."""
    named = oracles.named_parameters(shapes={"c_fc": (12, 8)})
    optimizer = built(named["c_fc"])
    oracles.replay(optimizer, named, steps=6)
    other = torch.nn.Parameter(named["c_fc"].detach().clone())
    fresh = built(other)
    fresh.load_state_dict(optimizer.state_dict())
    for name in ("row_length", "direction_length", "length_exp_avg", "length_exp_avg_sq"):
        one, two = optimizer.state[named["c_fc"]][name], fresh.state[other][name]
        assert torch.equal(one, two)
        assert one.shape == (12, 1)
