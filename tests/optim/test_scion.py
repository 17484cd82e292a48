"""Scion against pytorch_optimizer's in full precision, and the balls it keeps to."""

import pytest
import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer import scion as reference

from optim import build_optimizer
from tests.optim import oracles_matrix as oracles

SHAPES = {"tall": (12, 8), "wide": (8, 12), "wte": (20, 8), "bias": (8,), "one": (1,)}


def groups(named):
    roles = {"hidden": ["tall", "wide"], "embedding": ["wte"], "vector": ["bias", "one"]}
    return [
        {"params": [named[name] for name in names], "names": names, "role": role}
        for role, names in roles.items()
    ]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("constrained", [True, False])
def test_equals_the_package(monkeypatch, constrained, dtype, tolerance):
    monkeypatch.setattr(
        reference,
        "zero_power_via_newton_schulz_5",
        lambda g, steps: oracles.newton_schulz(g, steps),
    )
    ours, theirs = (oracles.named_parameters(dtype, SHAPES) for _ in range(2))
    radii = {"hidden_radius": 2.0, "embedding_radius": 30.0, "vector_radius": 3.0}
    optimizer = build_optimizer(
        "scion", groups(ours), lr=0.02, momentum=0.8, constrained=constrained, **radii
    )
    oracles.replay(optimizer, ours)
    norms = reference.LMONorm
    theirs_groups = [
        {**group, "norm_type": norm, "scale": radius}
        for group, norm, radius in zip(
            groups(theirs), (norms.SPECTRAL, norms.SIGN, norms.BIAS), radii.values(), strict=True
        )
    ]
    package = pytorch_optimizer.SCION(
        theirs_groups, lr=0.02, momentum=0.2, constraint=constrained, foreach=False
    )
    oracles.replay(package, theirs)
    assert oracles.distance(ours, {k: p.detach() for k, p in theirs.items()}) < tolerance


def test_constrained_weights_stay_in_their_balls():
    named = oracles.named_parameters(shapes=SHAPES)
    optimizer = build_optimizer("scion", groups(named), lr=0.5, hidden_radius=2.0)
    oracles.replay(optimizer, named, steps=40)
    for name in ("tall", "wide"):
        m, n = named[name].shape
        largest = torch.linalg.matrix_norm(named[name], 2).item()
        assert largest < 1.14 * 2.0 * (m / n) ** 0.5  # Newton-Schulz leaves up to 1.14
    assert named["wte"].abs().max() <= 3000 / 8 * (1 + 1e-9)
    assert named["bias"].square().mean().sqrt() <= 4.0 * (1 + 1e-9)
