"""LARS against an oracle and a package, and the length of its step."""

import pytest
import torch

from optim import build_optimizer
from tests.optim import recorded


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"momentum": 0.9, "trust": 1e-3, "weight_decay": 0.1},
        {"momentum": 0.0, "trust": 1e-2, "weight_decay": 0.0},
    ],
)
def test_equals_its_oracle(hyperparameters):
    recorded.assert_equals_oracle("lars", 1.0, **hyperparameters)


def test_equals_pytorch_optimizer():
    values = {"momentum": 0.9, "weight_decay": 0.1}
    options = {"trust_coefficient": 1e-3, "dampening": 0.0}
    theirs = recorded.pytorch_optimizer("LARS", **values, **options)
    recorded.assert_equals_package("lars", theirs, lr=1.0, **values, trust=1e-3)


def test_it_moves_each_matrix_by_its_trust():
    grads = {key: gs[:1] for key, gs in recorded.gradients().items()}
    named = recorded.start()
    optimizer = build_optimizer("lars", list(named.values()), lr=2.0, trust=1e-3, weight_decay=0.1)
    for key, change in recorded.moved(recorded.take(optimizer, named, grads, [2.0])).items():
        p, g = recorded.start()[key].detach(), grads[key][0]
        if change.ndim == 2:
            size = 2e-3 * p.norm() * (g + 0.1 * p).norm() / (g.norm() + 0.1 * p.norm())
            assert change.norm() == pytest.approx(size.item(), rel=1e-12)
        else:
            assert torch.allclose(change, -2.0 * g)
