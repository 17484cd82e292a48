"""Slow oracles: each optimizer for one tensor, one operation after the other, from its paper.

Every function takes the first value of a tensor and its gradients, step by step, and the
hyperparameters by their names in the paper's order; it returns the tensor after the last step.
`lrs` is one learning rate for each step. Written apart from optim/, in plain arithmetic.
"""

import math

import torch


def moments(g, m, v, t, beta1, beta2):
    """Adam's averages and their bias-corrected values."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return m, v, m / (1 - beta1**t), v / (1 - beta2**t)


def adamw(p, grads, lrs, *, betas, eps, weight_decay):
    m = v = torch.zeros_like(p)
    for t, (g, lr) in enumerate(zip(grads, lrs, strict=True), start=1):
        m, v, m_hat, v_hat = moments(g, m, v, t, *betas)
        p = p - lr * weight_decay * p - lr * m_hat / (v_hat.sqrt() + eps)
    return p


def nadamw(p, grads, lrs, *, betas, eps, weight_decay):
    m = v = torch.zeros_like(p)
    for t, (g, lr) in enumerate(zip(grads, lrs, strict=True), start=1):
        m, v, _, v_hat = moments(g, m, v, t, *betas)
        ahead = (betas[0] * m + (1 - betas[0]) * g) / (1 - betas[0] ** t)
        p = p - lr * weight_decay * p - lr * ahead / (v_hat.sqrt() + eps)
    return p


def adopt(p, grads, lrs, *, betas, eps, weight_decay):
    m, v = torch.zeros_like(p), grads[0] ** 2
    for t, (g, lr) in enumerate(zip(grads[1:], lrs[1:], strict=True), start=1):
        c = t**0.25
        n = (g / v.sqrt().clamp(min=eps)).clamp(-c, c)
        m = betas[0] * m + (1 - betas[0]) * n
        p = p - lr * weight_decay * p - lr * m
        v = betas[1] * v + (1 - betas[1]) * g**2
    return p


def ademamix(p, grads, lrs, *, betas, alpha, warmup_steps, eps, weight_decay):
    beta1, beta2, beta3 = betas
    m1 = m2 = v = torch.zeros_like(p)
    for t, (g, lr) in enumerate(zip(grads, lrs, strict=True), start=1):
        alpha_t, beta3_t = alpha, beta3
        if warmup_steps:
            part = t / warmup_steps
            alpha_t = min(part * alpha, alpha)
            l1, l3 = math.log(beta1), math.log(beta3)
            beta3_t = min(math.exp(l1 * l3 / ((1 - part) * l3 + part * l1)), beta3)
        m1, v, m1_hat, v_hat = moments(g, m1, v, t, beta1, beta2)
        m2 = beta3_t * m2 + (1 - beta3_t) * g
        u = (m1_hat + alpha_t * m2) / (v_hat.sqrt() + eps)
        p = p - lr * (u + weight_decay * p)
    return p


def mars(p, grads, lrs, *, betas, gamma, eps, weight_decay, roles):
    if p.ndim != 2:
        own = roles["vector"]
        lrs = [lr * own["lr_ratio"] for lr in lrs]
        # The decay of the authors' vectors has an lr and a factor of its own.
        return adamw(p, grads, lrs, betas=own["betas"], eps=eps, weight_decay=weight_decay)
    m = v = last = torch.zeros_like(p)
    for t, (g, lr) in enumerate(zip(grads, lrs, strict=True), start=1):
        c = g + gamma * betas[0] / (1 - betas[0]) * (g - last)
        norm = c.pow(2).sum().sqrt()
        c = c / norm if norm > 1 else c
        m, v, m_hat, v_hat = moments(c, m, v, t, *betas)
        p = p - lr * (weight_decay * p + m_hat / (v_hat.sqrt() + eps))
        last = g
    return p


def adam_mini(p, grads, lrs, *, betas, eps, weight_decay, blocks):
    """`blocks` are lists of rows that share a v; None: every element has its own."""
    if blocks is None:
        return adamw(p, grads, lrs, betas=betas, eps=eps, weight_decay=weight_decay)
    p, m, v = p.clone(), torch.zeros_like(p), [0.0] * len(blocks)
    for t, (g, lr) in enumerate(zip(grads, lrs, strict=True), start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        for i, rows in enumerate(blocks):
            v[i] = betas[1] * v[i] + (1 - betas[1]) * (g[rows] ** 2).mean()
            denominator = (v[i] / (1 - betas[1] ** t)).sqrt() + eps
            u = m[rows] / (1 - betas[0] ** t) / denominator
            p[rows] = p[rows] - lr * weight_decay * p[rows] - lr * u
    return p


def cautious_adamw(p, grads, lrs, *, betas, eps, weight_decay):
    m = v = torch.zeros_like(p)
    for t, (g, lr) in enumerate(zip(grads, lrs, strict=True), start=1):
        m, v, m_hat, v_hat = moments(g, m, v, t, *betas)
        k = torch.where(m * g > 0, 1.0, 0.0).to(p)
        k = k / max(k.mean().item(), 1e-3)
        p = p - lr * weight_decay * p - lr * k * m_hat / (v_hat.sqrt() + eps)
    return p


def lion(p, grads, lrs, *, betas, weight_decay):
    m = torch.zeros_like(p)
    for g, lr in zip(grads, lrs, strict=True):
        c = torch.sign(betas[0] * m + (1 - betas[0]) * g)
        p = p - lr * (c + weight_decay * p)
        m = betas[1] * m + (1 - betas[1]) * g
    return p


def cautious_lion(p, grads, lrs, *, betas, weight_decay):
    m = torch.zeros_like(p)
    for g, lr in zip(grads, lrs, strict=True):
        c = torch.sign(betas[0] * m + (1 - betas[0]) * g)
        k = torch.where(c * g > 0, 1.0, 0.0).to(p)
        k = k * k.numel() / (k.sum() + 1)
        p = p - lr * (k * c + weight_decay * p)
        m = betas[1] * m + (1 - betas[1]) * g
    return p


def signum(p, grads, lrs, *, momentum, nesterov, weight_decay):
    """The momentum is a sum; it has the sign of the average."""
    m = torch.zeros_like(p)
    for g, lr in zip(grads, lrs, strict=True):
        m = momentum * m + g
        p = p - lr * (torch.sign(g + momentum * m if nesterov else m) + weight_decay * p)
    return p


def lamb(p, grads, lrs, *, betas, eps, weight_decay, bias_correction=True, max_weight_norm=0.0,
         ratio_eps=0.0, adapt_vectors=False):  # fmt: skip
    m = v = torch.zeros_like(p)
    adapted = p.ndim >= 2 or adapt_vectors
    for t, (g, lr) in enumerate(zip(grads, lrs, strict=True), start=1):
        m, v, m_hat, v_hat = moments(g, m, v, t, *betas)
        u = m_hat / (v_hat.sqrt() + eps) if bias_correction else m / (v.sqrt() + eps)
        r = 1.0
        if adapted:
            u = u + weight_decay * p
            weight, update = p.pow(2).sum().sqrt().item(), u.pow(2).sum().sqrt().item()
            if weight > 0 and update > 0:
                r = (min(weight, max_weight_norm or math.inf)) / (update + ratio_eps)
        p = p - lr * r * u
    return p


def lars(p, grads, lrs, *, momentum, trust, weight_decay):
    b = torch.zeros_like(p)
    for g, lr in zip(grads, lrs, strict=True):
        weight, grad = p.pow(2).sum().sqrt().item(), g.pow(2).sum().sqrt().item()
        d = g
        if p.ndim >= 2:
            r = 1.0
            if weight > 0 and grad > 0:
                r = trust * weight / (grad + weight_decay * weight)
            d = r * (g + weight_decay * p)
        b = momentum * b + d
        p = p - lr * b
    return p


def scaled_sgd(p, grads, lrs, k, *, momentum, weight_decay):
    b = grads[0]
    for t, (g, lr) in enumerate(zip(grads, lrs, strict=True)):
        b = momentum * b + (1 - momentum) * g if t and momentum else (g if not momentum else b)
        p = p - lr * weight_decay * p - lr * k * b
    return p


def g_snr(g, eps):
    n = g.numel()
    if n == 1:
        return 1.0
    std = ((g - g.mean()).pow(2).sum() / (n - 1)).sqrt().item()
    return g.pow(2).sum().sqrt().item() / (std + eps)


def sgd_sai(p, grads, lrs, *, momentum, eps, weight_decay, largest=1.0):
    k = g_snr(grads[0], eps) / largest
    return scaled_sgd(p, grads, lrs, k, momentum=momentum, weight_decay=weight_decay)


def sgd_sqrtn(p, grads, lrs, *, momentum, weight_decay, largest=1.0):
    k = math.sqrt(p.numel()) / largest
    return scaled_sgd(p, grads, lrs, k, momentum=momentum, weight_decay=weight_decay)
