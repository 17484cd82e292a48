"""AdaMuon against an oracle, and without its sign against pytorch_optimizer's."""

import pytest
import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.muon import adamuon as reference

from optim import build_optimizer
from tests.optim import oracles_matrix as oracles
from tests.optim import oracles_muon

MATRICES = {"tall": (12, 8), "wide": (8, 12), "square": (8, 8), "another": (12, 8)}
BOTH = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("nesterov", "sign"), [(True, True), (False, True), (True, False)])
def test_equals_the_oracle(nesterov, sign, dtype, tolerance):
    form = {"nesterov": nesterov, "sign": sign, **BOTH}
    ours = oracles.named_parameters(dtype, MATRICES)
    oracles.replay(build_optimizer("adamuon", ours.values(), **form), ours)
    start = oracles.named_parameters(dtype, MATRICES)
    theirs = oracles.oracle(lambda p: oracles_muon.adamuon(p, **form), start)
    assert oracles.distance(ours, theirs) < tolerance


def test_without_sign_and_nesterov_equals_the_package_to_1e_5(monkeypatch):
    """The package corrects the bias of v; a step of fixed length sees that only through eps."""
    monkeypatch.setattr(
        reference,
        "zero_power_via_newton_schulz_5",
        lambda g, num_steps, weights: oracles.newton_schulz(g, num_steps),
    )
    ours, theirs = (oracles.named_parameters(shapes=MATRICES) for _ in range(2))
    plain = {"sign": False, "nesterov": False}
    oracles.replay(build_optimizer("adamuon", ours.values(), **plain, **BOTH), ours)
    groups = [{"params": list(theirs.values()), "use_muon": True}]
    values = {"lr": 0.02, "betas": (0.9, 0.9), "weight_decay": 0.1, "eps": 1e-8}
    oracles.replay(pytorch_optimizer.AdaMuon(groups, foreach=False, **values), theirs)
    assert oracles.distance(ours, {k: p.detach() for k, p in theirs.items()}) < 1e-5


def test_every_update_has_rms_a_fifth():
    named = oracles.named_parameters(shapes=MATRICES)
    optimizer = build_optimizer("adamuon", named.values(), lr=1.0, weight_decay=0.0)
    for step in range(3):
        before = {name: p.detach().clone() for name, p in named.items()}
        for name, p in named.items():
            p.grad = oracles.gradient(step, name, p)
        optimizer.step()
        for name, p in named.items():
            assert (p - before[name]).square().mean().sqrt().item() == pytest.approx(0.2, rel=1e-6)


def test_sign_makes_the_step_jump_where_the_momentum_passes_zero():
    """An entry of 1e-12 counts as much as any; without sign it does not count."""

    def step(entry, sign):
        p = torch.nn.Parameter(torch.zeros(6, 4, dtype=torch.float64))
        p.grad = oracles.gradient(0, "jump", p)
        p.grad[2, 1] = entry
        build_optimizer("adamuon", [p], lr=1.0, sign=sign).step()
        return p.detach()

    assert (step(1e-12, True) - step(-1e-12, True)).abs().max() > 0.05
    assert (step(1e-12, False) - step(-1e-12, False)).abs().max() < 1e-9


def test_second_moment_of_bfloat16_weights_is_float32():
    p = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    optimizer = build_optimizer("adamuon", [p])
    p.grad = torch.randn_like(p)
    optimizer.step()
    assert optimizer.state[p]["second_moment"].dtype == torch.float32
