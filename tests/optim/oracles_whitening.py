"""Slow oracles of KL-SOAP, SOAP-Muon and PSGD-Kron: one matrix, line by line from the papers."""

import torch

from optim import build_optimizer
from tests.optim import oracles_matrix
from tests.optim.oracles_matrix import gram_schmidt, newton_schulz

SHAPES = {"square": (8, 8), "larger": (12, 12), "tall": (12, 8), "wide": (8, 12), "one": (1, 1)}


def distance_of(name, rule, dtype, tolerance, **hyperparameters):
    """Between the optimizer `name` and `rule(p, bases)`, after twelve steps.

    The oracle's first bases are ours, after a check that they are eigenvectors: in a matrix that is
    not square, the first gradient does not say which.
    """
    ours = oracles_matrix.named_parameters(dtype, SHAPES)
    optimizer = build_optimizer(name, ours.values(), **hyperparameters)
    oracles_matrix.replay(optimizer, ours, steps=1)
    first = {
        key: [optimizer.state[p][f"{side}_basis"].clone() for side in ("left", "right")]
        for key, p in ours.items()
    }
    for step in range(1, 12):
        for key, p in ours.items():
            p.grad = oracles_matrix.gradient(step, key, p)
        optimizer.step()
    distances = []
    for key, p in oracles_matrix.named_parameters(dtype, SHAPES).items():

        def bases(*moments, found=first[key]):
            for moment, basis in zip(moments, found, strict=True):
                unit = basis.T @ basis - torch.eye(len(basis), dtype=dtype)
                turned = basis.T @ moment @ basis / moment.norm()
                assert (
                    max(unit.abs().max(), (turned - turned.diag().diag()).abs().max()) < tolerance
                )
                assert (turned.diag().diff() < tolerance).all(), "the largest first"
            return found

        theirs = oracles_matrix.oracle(lambda x, b=bases: rule(x, b), {key: p})
        distances.append(oracles_matrix.distance({key: ours[key]}, theirs))
    return max(distances)


def kl_soap(p, bases, lr, betas, shampoo_beta, eps, weight_decay, variant, every, limit=4000.0):
    """Generator: KL-SOAP or KL-Shampoo, arXiv:2509.03378, on one matrix.

    `bases(L, R)` are the first ones: those of a null space are arbitrary.
    """
    (rows, columns), b, g = p.shape, shampoo_beta, (yield p)
    left, right = (1 - b) * g @ g.T / columns, (1 - b) * g.T @ g / rows
    ql, qr = bases(left, right)
    dl = torch.full((rows,), 0.1, dtype=p.dtype)
    dr = torch.full((columns,), 0.1, dtype=p.dtype)
    m, v, k, g = torch.zeros_like(p), torch.zeros_like(p), 0, (yield p)
    while True:
        k += 1
        y = ql.T @ g @ qr
        inverse_root = (torch.outer(dl, dr)) ** -0.5
        if variant == "soap":  # m is kept in the original basis
            m = betas[0] * m + (1 - betas[0]) * g
            v = betas[1] * v + (1 - betas[1]) * y**2
            u = ql @ ((ql.T @ m @ qr) / (v**0.5 + eps)) @ qr.T
        else:
            m = betas[0] * m + (1 - betas[0]) * g
            scaled = (ql.T @ m @ qr) * inverse_root / (1 + eps * inverse_root)
            u = ql @ scaled @ qr.T
        left_inverse, right_inverse = ql @ (ql / dl).T, qr @ (qr / dr).T
        left = b * left + (1 - b) / columns * g @ right_inverse @ g.T
        right = b * right + (1 - b) / rows * g.T @ left_inverse @ g
        new = [
            b * d + (1 - b) * share
            for d, share in (
                (dl, (y**2 / dr).mean(1)),
                (dr, (y**2 / dl[:, None]).mean(0)),
            )
        ]
        dl, dr = (torch.maximum(d, torch.tensor(max(10, min(len(d), limit)) ** -2.0)) for d in new)
        if k % every == 0:
            ql, qr = gram_schmidt(left @ ql), gram_schmidt(right @ qr)
        p = (1 - lr * weight_decay) * (p - lr * u)
        g = yield p


def soap_muon(p, bases, lr, momentum, beta2, shampoo_beta, eps, weight_decay, every):
    """Generator: SOAP-Muon with scale "original", track 3 of modded-nanogpt, on one matrix."""
    (rows, columns), k, g = p.shape, 0, (yield p)
    b, v = torch.zeros_like(p), torch.zeros_like(p)
    left, right = torch.zeros(rows, rows).to(p), torch.zeros(columns, columns).to(p)
    ql = qr = None
    while True:
        b = momentum * b + (1 - momentum) * g
        u = momentum * b + (1 - momentum) * g
        if k:
            y = ql.T @ u @ qr
            v = beta2 * v + (1 - beta2) * y**2
            u = ql @ (y / v.clamp(min=eps**2) ** 0.5) @ qr.T
        p = (1 - lr * weight_decay) * p - lr * max(1, rows / columns) ** 0.5 * newton_schulz(u)
        left = shampoo_beta * left + (1 - shampoo_beta) * g @ g.T
        right = shampoo_beta * right + (1 - shampoo_beta) * g.T @ g
        if k == 0:
            ql, qr = bases(left, right)
        elif k % every == 0:
            order = torch.diagonal(ql.T @ left @ ql).argsort(descending=True)
            v, ql = v[order, :], gram_schmidt(left @ ql[:, order])
            order = torch.diagonal(qr.T @ right @ qr).argsort(descending=True)
            v, qr = v[:, order], gram_schmidt(right @ qr[:, order])
        k += 1
        g = yield p


def lower_bound(s):
    """Of the largest eigenvalue: by one step from the longest column."""
    x = s[:, (s * s).sum(0).argmax()]
    x = s @ x
    return ((s @ (x / (x @ x) ** 0.5)) ** 2).sum() ** 0.5


def psgd_kron(p, lr, beta1, weight_decay, precond_lr, scale, longest, probe, fits):
    """Generator: PSGD-Kron, arXiv:2402.04553, in kron_torch's order, on a matrix or a vector.

    `probe(shape, step)` is V; `fits(step)` says whether the factors move; steps count from 1.
    """
    sides = list(p.shape)
    if p.ndim == 2:
        factors = [scale**0.5 * torch.eye(n, dtype=p.dtype) for n in sides]
    else:
        factors = [scale * torch.eye(sides[0], dtype=p.dtype)]
    diagonal = [p.ndim == 1 or n == 1 or n > longest for n in sides]
    m, t, g = torch.zeros_like(p), 0, (yield p)
    while True:
        t += 1
        m = beta1 * m + (1 - beta1) * g
        d = (m / (1 - beta1**t)).reshape(sides[0], -1)
        other = factors[1] if p.ndim == 2 else torch.ones(1, 1, dtype=p.dtype)
        if fits(t):
            v = probe((sides[0], d.shape[1]), t)
            d = d + torch.finfo(torch.float32).eps ** 0.5 * d.abs().mean() * v
            a = factors[0] @ d @ other.T
            b = torch.linalg.inv(factors[0]).T @ v @ torch.linalg.inv(other)
            for i, (x, y) in enumerate(((a @ a.T, b @ b.T), (a.T @ a, b.T @ b))[: p.ndim]):
                if diagonal[i]:
                    x, y = x.diag().diag(), y.diag().diag()
                    bound = (x + y).max()
                else:
                    bound = lower_bound(x + y)
                factors[i] = factors[i] - precond_lr * torch.triu(x - y) @ factors[i] / bound
            other = factors[1] if p.ndim == 2 else other
        u = factors[0].T @ factors[0] @ d @ other.T @ other
        u = u * min(1, 1.1 / ((u**2).mean().item() ** 0.5 + 1e-12))
        p = (1 - lr * weight_decay) * p - lr * u.reshape(p.shape)
        g = yield p
