"""NorMuon against pytorch_optimizer's in full precision, and its own promises."""

import pytest
import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.muon import normuon as reference

from optim import build_optimizer
from tests.optim import oracles_matrix as oracles

MATRICES = {"tall": (12, 8), "wide": (8, 12), "square": (8, 8)}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(
    ("ours_scale", "theirs_scale"),
    [("original", "preserve_norm"), ("match_rms_adamw", "match_rms")],
)
def test_equals_the_package(monkeypatch, ours_scale, theirs_scale, nesterov, dtype, tolerance):
    monkeypatch.setattr(
        reference,
        "zero_power_via_newton_schulz_5",
        lambda g, num_steps, weights: oracles.newton_schulz(g, num_steps),
    )
    both = {"lr": 0.02, "momentum": 0.9, "beta2": 0.8, "nesterov": nesterov, "weight_decay": 0.1}
    ours, theirs = (oracles.named_parameters(dtype, MATRICES) for _ in range(2))
    oracles.replay(build_optimizer("normuon", ours.values(), scale=ours_scale, **both), ours)
    groups = [{"params": list(theirs.values()), "use_muon": True}]
    package = pytorch_optimizer.NorMuon(groups, update_scale=theirs_scale, foreach=False, **both)
    oracles.replay(package, theirs)
    assert oracles.distance(ours, {k: p.detach() for k, p in theirs.items()}) < tolerance


def test_first_update_has_equal_rows_and_rms_a_fifth():
    named = oracles.named_parameters(shapes={"c_fc": (24, 8)})
    before = named["c_fc"].detach().clone()
    optimizer = build_optimizer("normuon", named.values(), lr=1.0, weight_decay=0.0)
    oracles.replay(optimizer, named, steps=1)
    rows = (named["c_fc"] - before).square().mean(-1).sqrt()
    assert torch.allclose(rows, torch.full_like(rows, 0.2), rtol=1e-6)


def test_has_muons_options():
    """Its first update is Muon's with rows of one length, whatever made the update."""
    options = {"orthogonalisation": "polar", "normalise_rows": True, "renormalise": True}
    updates = {}
    for name in ("muon", "normuon"):
        p = oracles.named_parameters(shapes={"c_fc": (12, 8)})["c_fc"]
        before = p.detach().clone()
        p.grad = oracles.gradient(0, "c_fc", p)
        build_optimizer(name, [p], lr=1.0, weight_decay=0.0, **options).step()
        updates[name] = (p - before).detach()
    rows = updates["muon"] / updates["muon"].norm(dim=1, keepdim=True)
    assert torch.allclose(updates["normuon"], 0.2 * 8**0.5 * rows, atol=1e-8)
