"""Slow oracles of the methods for matrices: one tensor, written line by line from the papers."""

import torch

SHAPES = {"tall": (12, 8), "wide": (8, 12), "square": (8, 8), "bias": (8,), "one": (1,)}


def named_parameters(dtype=torch.float64, shapes=None):
    """Equal parameters for every call."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.nn.Parameter(
            0.1 * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        )
        for name, shape in (shapes or SHAPES).items()
    }


def gradient(step, name, p):
    """Of step 0, 1, ..., the same for every call."""
    generator = torch.Generator().manual_seed(1000 * step + sum(map(ord, name)))
    return torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)


def replay(optimizer, named, steps=12, scale=1.0):
    """Take steps with recorded gradients; returns the parameters."""
    for step in range(steps):
        for name, p in named.items():
            p.grad = scale * gradient(step, name, p)
        optimizer.step()
    return named


def oracle(rule, named, steps=12):
    """What the generator `rule(p)` makes of each tensor; it is sent one gradient after another."""
    results = {}
    for name, p in named.items():
        moving = rule(p.detach().clone())
        next(moving)
        for step in range(steps):
            results[name] = moving.send(gradient(step, name, p)).clone()
    return results


def distance(ours, theirs):
    """Largest difference relative to the largest value, over all tensors."""
    return max(
        ((p.detach() - theirs[name]).abs().max() / theirs[name].abs().max()).item()
        for name, p in ours.items()
    )


def newton_schulz(x, steps=5):
    """The quintic iteration on one matrix."""
    x = x / x.norm()
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    return x


def adamw(p, lr, betas, eps, weight_decay):
    """Generator: AdamW on one tensor."""
    m, v, t, g = torch.zeros_like(p), torch.zeros_like(p), 0, (yield p)
    while True:
        t += 1
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        p = p - lr * weight_decay * p
        p = p - lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
        g = yield p
