"""Slow oracles of the Muon family: one matrix, from its singular values, as the papers say it."""

import torch

QUINTIC = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]
POLYNOMIALS = {
    "newton_schulz": [(3.4445, -4.7750, 2.0315)] * 5,
    "polar_express": [
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ],
    "turbo": QUINTIC[1:],
    "polar": [(2, -1.5, 0.5)] * 12,
}


def norm(x):
    return x.square().sum() ** 0.5


def orthogonal(x, method="newton_schulz"):
    """The polynomials of the method, applied to the singular values."""
    if not x.any():
        return x
    wide = x if x.shape[0] <= x.shape[1] else x.T
    if method == "turbo":
        wide = torch.stack([row / (wide @ row).abs().sum() ** 0.5 for row in wide])
    else:
        wide = wide / norm(wide) / (1.02 if method == "polar_express" else 1)
    u, s, vh = torch.linalg.svd(wide, full_matrices=False)
    for a, b, c in POLYNOMIALS[method]:
        s = a * s + b * s**3 + c * s**5
    result = (u * s) @ vh
    return result if x.shape[0] <= x.shape[1] else result.T


def averaged(b, g, momentum, nesterov):
    b = momentum * b + (1 - momentum) * g
    return b, momentum * b + (1 - momentum) * g if nesterov else b


def muon(p, lr, momentum, weight_decay, method, normalise_rows, renormalise, nesterov=True):
    """Generator: Muon in its first scale, with the options."""
    b, g = torch.zeros_like(p), (yield p)
    m, n = p.shape
    while True:
        b, u = averaged(b, g, momentum, nesterov)
        if normalise_rows:
            u = torch.stack([row * norm(u) / m**0.5 / norm(row) for row in u])
        o = orthogonal(u, method)
        if renormalise:
            o = o * min(m, n) ** 0.5 / norm(o)
        p = (1 - lr * weight_decay) * p - lr * max(1, m / n) ** 0.5 * o
        g = yield p


def adamuon(p, lr, momentum, weight_decay, nesterov=True, sign=True):
    """Generator: AdaMuon, arXiv:2507.11005, Algorithm 1."""
    b, v, g = torch.zeros_like(p), torch.zeros_like(p), (yield p)
    while True:
        b, u = averaged(b, g, momentum, nesterov)
        o = orthogonal(u.sign() if sign else u)
        v = momentum * v + (1 - momentum) * o**2
        u = o / (v**0.5 + 1e-8)
        u = 0.2 * p.numel() ** 0.5 * u / (norm(u) + 1e-8)
        p = (1 - lr * weight_decay) * p - lr * u
        g = yield p


def dion2(p, lr, momentum, fraction, weight_decay):
    """Generator: Dion2, arXiv:2512.16928, a slice at a time."""
    buffer, g = torch.zeros_like(p), (yield p)
    m, n = p.shape
    while True:
        buffer = buffer + g
        slices = list(buffer) if m <= n else list(buffer.T)
        k = -int(-fraction * len(slices) // 1)
        ranked = sorted(range(len(slices)), key=lambda i: -slices[i].abs().sum())[:k]
        o = orthogonal(torch.stack([slices[i] for i in ranked]), "polar_express")
        p = (1 - lr * weight_decay) * p
        for place, i in enumerate(ranked):
            at = (i, slice(None)) if m <= n else (slice(None), i)
            buffer[at] = momentum * buffer[at]
            p[at] = p[at] - lr * (m / n) ** 0.5 * o[place]
        g = yield p


def aurora(p, lr, momentum, weight_decay, steps, power):
    """Generator: Aurora, tilde-research/aurora-release."""
    b, g = torch.zeros_like(p), (yield p)
    m, n = p.shape
    while True:
        b, u = averaged(b, g, momentum, True)
        o = orthogonal(u, "polar")
        if m != n:
            tall = u if m > n else u.T
            d = torch.tensor([1 / norm(row) for row in tall], dtype=p.dtype)
            for step in range(steps):
                o = orthogonal(torch.diag(d) @ tall, "polar")
                if step < steps - 1:
                    for i, row in enumerate(o):
                        d[i] = d[i] * (tall.shape[1] / tall.shape[0] / norm(row) ** 2) ** power
            o = o if m > n else o.T
        p = (1 - lr * weight_decay) * p - lr * max(1, m / n) ** 0.5 * o
        g = yield p


def muown(p, lr, momentum, betas, eps, weight_decay):
    """Generator: Muown, arXiv:2605.10797, with V kept and not rebuilt."""
    length = torch.tensor([[norm(row)] for row in p], dtype=p.dtype)
    v, b, g = p.clone(), torch.zeros_like(p), (yield p)
    m1, m2, t = torch.zeros_like(length), torch.zeros_like(length), 0
    while True:
        t += 1
        c = torch.tensor([[norm(row)] for row in v], dtype=p.dtype)
        along = torch.tensor([[g[i] @ v[i] / c[i, 0]] for i in range(len(p))], dtype=p.dtype)
        across = length / c * (g - along * v / c)
        b, w = averaged(b, across, momentum, True)
        v = v - lr * 0.2 * max(p.shape) ** 0.5 * orthogonal(w)
        m1 = betas[0] * m1 + (1 - betas[0]) * along
        m2 = betas[1] * m2 + (1 - betas[1]) * along**2
        length = length - lr * (m1 / (1 - betas[0] ** t)) / (
            (m2 / (1 - betas[1] ** t)) ** 0.5 + eps
        )
        before, c = p, torch.tensor([[norm(row)] for row in v], dtype=p.dtype)
        p = length * v / c - lr * weight_decay * before
        if weight_decay:  # the code reads its lengths and directions off the weights again
            length = torch.tensor([[norm(row)] for row in p], dtype=p.dtype)
            v = p / length * c
        g = yield p
