"""Twelve steps of recorded gradients in float64: ours, an oracle's and a published package's."""

import pytest
import torch

from optim import build_optimizer
from tests.optim import oracles

# Rows and columns both ways, a vector and a single element.
SHAPES = {"wte.weight": (12, 8), "h.0.mlp.c_fc.weight": (8, 12), "ln_f.weight": (8,), "x": (1,)}
STEPS = 12
ADAM = {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
SIGN = {"betas": (0.9, 0.99), "weight_decay": 0.1}


def start(shapes=SHAPES, dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    values = {key: torch.randn(s, generator=generator, dtype=dtype) for key, s in shapes.items()}
    return {key: torch.nn.Parameter(0.3 * value) for key, value in values.items()}


def gradients(shapes=SHAPES, steps=STEPS, dtype=torch.float64):
    """Of any size from 0.01 to 3, so that clipping and norms above and below 1 occur."""
    generator = torch.Generator().manual_seed(8)
    made = {}
    for i, (key, shape) in enumerate(shapes.items()):
        sizes = [10 ** (-2 + 2.5 * ((i + step) % 5) / 4) for step in range(steps)]
        made[key] = [s * torch.randn(shape, generator=generator, dtype=dtype) for s in sizes]
    return made


def rates(lr, steps=STEPS):
    """A schedule, so that every step has its own."""
    return [lr * (1 - 0.05 * step) for step in range(steps)]


def take(optimizer, named, grads, lrs):
    ratios = [group["lr"] / lrs[0] for group in optimizer.param_groups]
    for step, lr in enumerate(lrs):
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = lr * ratio
        for key, p in named.items():
            p.grad = grads[key][step].clone()
        optimizer.step()
    return named


def final(name, grads, lr=1e-2, shapes=SHAPES, **hyperparameters):
    """The parameters after the optimizer `name` has taken a step with each of `grads`.

    With `roles` there are two groups: matrices are hidden, the others are vectors.
    """
    named = start(shapes)
    groups = {}
    for key, p in named.items():
        role = ("hidden" if p.ndim == 2 else "vector") if "roles" in hyperparameters else None
        group = groups.setdefault(
            role, {"params": [], "names": []} | ({"role": role} if role else {})
        )
        group["params"].append(p)
        group["names"].append(key)
    optimizer = build_optimizer(name, groups.values(), lr=lr, **hyperparameters)
    return take(optimizer, named, grads, rates(lr))


def ours(name, lr, shapes=SHAPES, **hyperparameters):
    return final(name, gradients(shapes), lr, shapes, **hyperparameters)


def oracle(name, lr, **hyperparameters):
    """The same steps by the function `name` of oracles.py, tensor by tensor."""
    grads, one = gradients(), getattr(oracles, name)
    return {
        key: one(p.detach(), grads[key], rates(lr), **hyperparameters) for key, p in start().items()
    }


def assert_equals_oracle(name, lr, **hyperparameters):
    expected = oracle(name, lr, **hyperparameters)
    assert distance(ours(name, lr, **hyperparameters), expected) < 1e-12


def assert_equals_package(name, make, lr=1e-2, leave_out=(), tolerance=1e-10, **hyperparameters):
    """`make(named, lr)` is the package's optimizer; it does not get what is in `leave_out`."""
    theirs = {key: p for key, p in start().items() if key not in leave_out}
    take(make(theirs, lr), theirs, gradients(), rates(lr))
    mine = ours(name, lr, **hyperparameters)
    assert distance({key: mine[key] for key in theirs}, theirs) < tolerance


def pytorch_optimizer(cls, **hyperparameters):
    """A class of the package pytorch_optimizer, with its loop over tensors."""
    package = pytest.importorskip("pytorch_optimizer")

    def make(named, lr):
        params = list(named.values())
        return getattr(package, cls)(params, lr=lr, foreach=False, **hyperparameters)

    return make


def adamw(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, shapes=SHAPES, grads=None):
    """The same steps by torch's AdamW, at lr 1e-2."""
    named = start(shapes)
    values = {"betas": betas, "eps": eps, "weight_decay": weight_decay}
    optimizer = torch.optim.AdamW(named.values(), lr=1e-2, **values)
    return take(optimizer, named, grads or gradients(shapes), rates(1e-2))


def distance(ours, theirs):
    """Largest difference, relative to the largest value."""
    return max(((ours[k] - theirs[k]).abs().max() / theirs[k].abs().max()).item() for k in ours)


def close(one, two, tolerance=1e-12):
    return all(torch.allclose(one[key], two[key], rtol=tolerance, atol=tolerance) for key in one)


def moved(after):
    return {key: (p - start()[key]).detach() for key, p in after.items()}
