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


def matrix_power(symmetric, exponent):
    """Of a positive definite matrix, from its singular value decomposition."""
    u, s, vh = torch.linalg.svd(symmetric)
    return u @ torch.diag(s**exponent) @ vh


def shampoo(p, lr, betas, eps, epsilon, weight_decay, grafting, every, start):
    """Generator: Shampoo with averages, arXiv:2309.06497, on one matrix."""
    m, v, t, g = torch.zeros_like(p), torch.zeros_like(p), 0, (yield p)
    left = torch.zeros(len(p), len(p), dtype=p.dtype)
    right = torch.zeros(p.shape[1], p.shape[1], dtype=p.dtype)
    while True:
        t += 1
        c1, c2 = 1 - betas[0] ** t, 1 - betas[1] ** t
        left = betas[1] * left + (1 - betas[1]) * g @ g.T
        right = betas[1] * right + (1 - betas[1]) * g.T @ g
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        if t == start or (t > start and t % every == 0):
            left_root = matrix_power(
                left / c2 + epsilon * torch.eye(len(left), dtype=p.dtype), -1 / 4
            )
            right_root = matrix_power(
                right / c2 + epsilon * torch.eye(len(right), dtype=p.dtype), -1 / 4
            )
        adam = (m / c1) / ((v / c2) ** 0.5 + eps)
        if t < start:
            u = adam
        else:
            u = left_root @ (m / c1) @ right_root
            if grafting == "adam":
                u = u / u.square().sum() ** 0.5 * adam.square().sum() ** 0.5
        p = (1 - lr * weight_decay) * p - lr * u
        g = yield p


def galore(p, lr, betas, eps, weight_decay, rank, gap, scale):
    """Generator: GaLore, arXiv:2403.03507, on one matrix; wide ones are transposed throughout."""
    wide = p.shape[0] < p.shape[1]
    p = p.T if wide else p
    r = min(rank, *p.shape)
    m, v = torch.zeros(len(p), r, dtype=p.dtype), torch.zeros(len(p), r, dtype=p.dtype)
    t, g = 0, (yield p.T if wide else p)
    while True:
        if t % gap == 0:
            u, _, vh = torch.linalg.svd(g, full_matrices=False)
            basis = u[:, :r] if wide else vh.T[:, :r]
        t += 1
        low = (basis.T @ g).T if wide else g @ basis
        m = betas[0] * m + (1 - betas[0]) * low
        v = betas[1] * v + (1 - betas[1]) * low**2
        u = m / (v**0.5 + eps) * (1 - betas[1] ** t) ** 0.5 / (1 - betas[0] ** t)
        p = p - lr * scale * u @ basis.T
        p = p - lr * weight_decay * p
        g = yield p.T if wide else p


def apollo(p, lr, betas, eps, weight_decay, rank, gap, scale, scaling, limit, projection):
    """Generator: APOLLO, arXiv:2412.05270; `projection(rows, columns, epoch)` is its P."""
    m = v = before = None
    t, g = 0, (yield p)
    while True:
        r = min(rank, *p.shape)
        matrix = projection(r, min(p.shape), t // gap) / r**0.5
        t += 1
        tall = p.shape[0] >= p.shape[1]
        low = torch.einsum("ij,kj->ik", g, matrix) if tall else torch.einsum("ki,ij->kj", matrix, g)
        m = (1 - betas[0]) * low + (0 if m is None else betas[0] * m)
        v = (1 - betas[1]) * low**2 + (0 if v is None else betas[1] * v)
        u = m / (v**0.5 + eps)
        d = torch.empty_like(g)
        for i in range(max(p.shape)):
            one = (slice(i, i + 1), slice(None)) if tall else (slice(None), slice(i, i + 1))
            over = one if scaling == "channel" else slice(None)
            d[one] = g[one] * u[over].square().sum() ** 0.5 / (low[over].square().sum() ** 0.5)
        norm = d.square().sum() ** 0.5
        if before is not None and norm > limit * before:
            d, norm = d * (limit * before / norm), limit * before
        before = norm
        correction = (1 - betas[1] ** t) ** 0.5 / (1 - betas[0] ** t)
        p = p - lr * correction * scale**0.5 * d
        p = p - lr * weight_decay * p
        g = yield p


def gram_schmidt(x):
    """Orthonormal columns that span those of `x`."""
    columns = []
    for column in x.T:
        for _ in range(2):
            for other in columns:
                column = column - (other @ column) * other
        columns.append(column / (column @ column) ** 0.5)
    return torch.stack(columns, 1)


def dion(p, lr, momentum, weight_decay, q, transposed=False):
    """Generator: Dion, arXiv:2504.05295, on one matrix from the right factor `q`.

    transposed: its mathematics is for the transposed matrix.
    """
    scale = lr * (p.shape[0] / p.shape[1]) ** 0.5
    buffer, g = torch.zeros_like(p.T if transposed else p), (yield p)
    while True:
        b = buffer + (g.T if transposed else g)
        left = gram_schmidt(b @ q)
        w = b.T @ left
        buffer = b - (1 - momentum) * left @ w.T
        q = w / (w * w).sum(0) ** 0.5
        step = left @ q.T
        p = (1 - lr * weight_decay) * p - scale * (step.T if transposed else step)
        g = yield p


def soap(p, lr, betas, shampoo_beta, eps, weight_decay, every):
    """Generator: SOAP, arXiv:2409.11321, on one matrix, with both bases of full rank."""
    m, v, k, g = torch.zeros_like(p), torch.zeros_like(p), 0, (yield p)
    left, right = (1 - shampoo_beta) * g @ g.T, (1 - shampoo_beta) * g.T @ g
    ql, qr = (torch.linalg.svd(side)[0] for side in (left, right))
    g = yield p
    while True:
        k += 1
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * (ql.T @ g @ qr) ** 2
        u = ql @ ((ql.T @ m @ qr) / (v**0.5 + eps)) @ qr.T
        p = p - lr * (1 - betas[1] ** k) ** 0.5 / (1 - betas[0] ** k) * u
        p = p - lr * weight_decay * p
        left = shampoo_beta * left + (1 - shampoo_beta) * g @ g.T
        right = shampoo_beta * right + (1 - shampoo_beta) * g.T @ g
        if k % every == 0:
            order = torch.diagonal(ql.T @ left @ ql).argsort(descending=True)
            v, ql = v[order, :], gram_schmidt((left @ ql)[:, order])
            order = torch.diagonal(qr.T @ right @ qr).argsort(descending=True)
            v, qr = v[:, order], gram_schmidt((right @ qr)[:, order])
        g = yield p
