"""What must be true of several of the project's own optimizers by their mathematics."""

import pytest
import torch

from optim import build_optimizer
from tests.optim.recorded import close, final, gradients, moved, start, take

LR = 1e-2
NO_EPS = {"eps": 1e-300}


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("nadamw", NO_EPS),
        ("adopt", NO_EPS),
        ("ademamix", {**NO_EPS, "warmup_steps": 20}),
        ("cautious_adamw", NO_EPS),
        ("adam_mini", NO_EPS),
        ("lamb", NO_EPS),
        ("lion", {}),
        ("cautious_lion", {}),
        ("signum", {}),
    ],
)
def test_the_size_of_all_gradients_is_irrelevant(name, hyperparameters):
    larger = {key: [1000 * g for g in gs] for key, gs in gradients().items()}
    assert close(
        final(name, gradients(), **hyperparameters), final(name, larger, **hyperparameters)
    )


@pytest.mark.parametrize("name", ["sgd_sai", "sgd_sqrtn", "mars"])
def test_the_size_of_all_gradients_matters(name):
    larger = {key: [10 * g for g in gs] for key, gs in gradients().items()}
    assert not close(final(name, gradients()), final(name, larger), 1e-3)


@pytest.mark.parametrize("name", ["lion", "signum"])
def test_every_coordinate_moves_by_lr_or_not_at_all(name):
    grads = {key: [g.round() for g in gs[:1]] for key, gs in gradients().items()}
    named = start()
    optimizer = build_optimizer(name, list(named.values()), lr=LR)
    for key, change in moved(take(optimizer, named, grads, [LR])).items():
        expected = -LR * torch.sign(grads[key][0])
        assert torch.allclose(change, expected, rtol=0, atol=1e-15)
