"""ADOPT against an oracle and a package, and its first step."""

import pytest
import torch

from optim import build_optimizer
from tests.optim import recorded


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.1},
        {"betas": (0.9, 0.5), "eps": 0.1, "weight_decay": 0.0},
    ],
)
def test_equals_its_oracle(hyperparameters):
    recorded.assert_equals_oracle("adopt", 1e-2, **hyperparameters)


def test_equals_pytorch_optimizer():
    """Unlike the authors, the package decays in the first step and counts it for the clipping."""
    values = {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0}
    clip = {"clip_lambda": lambda t: (t - 1) ** 0.25}
    theirs = recorded.pytorch_optimizer("ADOPT", **values, **clip)
    recorded.assert_equals_package("adopt", theirs, **values)


def test_its_first_step_moves_nothing():
    grads = {key: gs[:1] for key, gs in recorded.gradients().items()}
    named = recorded.start()
    optimizer = build_optimizer("adopt", list(named.values()), lr=1e-2, weight_decay=0.1)
    recorded.take(optimizer, named, grads, [1e-2])
    assert all(torch.equal(p, recorded.start()[key]) for key, p in named.items())
    for key, p in named.items():
        assert torch.equal(optimizer.state[p]["exp_avg_sq"], grads[key][0] ** 2)
