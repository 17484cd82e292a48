"""MARS against an oracle, a package and AdamW, and its copy of the last gradient."""

import torch

from optim import build_optimizer
from tests.optim import recorded

VECTORS = {"vector": {"lr_ratio": 0.5, "betas": (0.9, 0.95)}}  # the authors' lr_1d, betas_1d


def test_equals_its_oracle():
    values = {"betas": (0.95, 0.99), "gamma": 0.025, "eps": 1e-8, "weight_decay": 0.1}
    recorded.assert_equals_oracle("mars", 1e-2, **values, roles=VECTORS)


def test_equals_pytorch_optimizer():
    """The package adds eps before the bias correction, so it is almost 0 here, and 1e-15 to v."""
    values = {"betas": (0.95, 0.99), "gamma": 0.025, "eps": 1e-30, "weight_decay": 0.1}
    vectors = {"lr_1d": 0.5e-2, "betas_1d": (0.9, 0.95), "weight_decay_1d": 0.1}
    theirs = recorded.pytorch_optimizer("MARS", **values, **vectors)
    recorded.assert_equals_package("mars", theirs, tolerance=1e-6, **values, roles=VECTORS)


def test_without_gamma_on_small_gradients_it_is_adamw():
    small = {key: [1e-2 * g for g in gs] for key, gs in recorded.gradients().items()}
    assert all(g.norm() <= 1 for gs in small.values() for g in gs)
    values = {"betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
    ours = recorded.final("mars", small, **values, gamma=0.0)
    assert recorded.close(ours, recorded.adamw(**values, grads=small))


def test_it_keeps_a_copy_of_the_last_gradient():
    """Zeroed in place, a gradient kept by reference would take the correction away."""
    results = []
    for zero in (False, True):
        named = recorded.start()
        optimizer = build_optimizer("mars", list(named.values()), lr=1e-2)
        for step in range(3):
            for key, p in named.items():
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                p.grad.copy_(recorded.gradients()[key][step])
            optimizer.step()
            if zero:
                optimizer.zero_grad(set_to_none=False)
        results.append(named)
    assert recorded.close(*results, 0.0)
