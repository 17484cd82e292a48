"""Three steps of any optimizer on a device, against the same steps in float64 on the CPU."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import torch

import optim
from bench.gpu.part import Row
from bench.optimizer_step import preset
from configs import Model
from optim import build_optimizer
from optim.core.compiled import compiled_update
from train_gpt2 import GPT

# Of the way that three steps move the weights; products in TF32 are less alike than sums.
TOLERANCE, OF_MATRICES = 5e-3, 0.1
# In three steps these divide by what is zero but for rounding (eigenvalues of moments that have few
# directions yet), or draw numbers that depend on the precision: they go as far, to elsewhere.
AMPLIFY = ("soap", "soap_muon", "kl_soap", "apollo", "dion")
# CUDA's QR and eigenvectors choose other directions among equal eigenvalues, also in float64.
OWN_DIRECTIONS = ("soap", "soap_muon", "kl_soap")
AS_FAR = 0.1
SHAPE = Model(vocab_size=256, block_size=32, n_layer=1, n_head=2, n_embd=128)  # some are compiled


def against_reference(name: str, device: str, compiled: bool = False) -> Row:
    """Three steps of an optimizer on the device in float32, and on the CPU in float64.

    On a GPU also in float64, where most are equal however much they amplify rounding.
    """
    before = compiled_update.cache_info()
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always", RuntimeWarning)
        apart, lengths, gradients, limit = _three_steps(name, device, torch.float32, compiled)
    ok = math.isfinite(apart) and gradients <= 1e-2
    found = f"{apart:.1g} apart, {lengths:.3f} as far"
    failed = any("not compiled" in str(notice.message) for notice in notices)
    if compiled and (failed or compiled_update.cache_info()[:2] == before[:2]):
        ok, found = False, f"{found}, but not compiled"
    if name in AMPLIFY:
        expected = f"as far to {AS_FAR:g}"
        ok = ok and abs(lengths - 1) <= AS_FAR
    else:
        expected = f"{limit:g} apart or less"
        ok = ok and apart <= limit
    if device == "cuda" and not compiled and name not in OWN_DIRECTIONS:
        double, *_ = _three_steps(name, device, torch.float64, False)
        expected += f", float64 {limit:g}"
        found += f", float64 {double:.1g}"
        ok = ok and double <= limit
    return {"expected": expected, "found": found, "gradients apart": gradients, "ok": ok}


def _three_steps(
    name: str, device: str, dtype: torch.dtype, compiled: bool
) -> tuple[float, float, float, float]:
    """Of the device's steps, against float64 on the CPU.

    Both get the gradients of the float64 model, so that only the updates are compared.

    Returns:
        How far apart the weights end, and how far the device's have moved, both in units of the way
        of the reference; how far apart the first gradients are; how far apart weights may be.
    """
    reference = GPT.initialised(SHAPE, 1).double()
    model = GPT.initialised(SHAPE, 1).to(device, dtype)
    start = [p.detach().clone() for p in reference.parameters()]
    one, two = _optimizer(name, reference, False), _optimizer(name, model, compiled)
    matrices = sum(one.update_costs()) > sum(p.numel() for p in start)
    generator = torch.Generator().manual_seed(1)
    gradients = []
    for step in range(3):
        rows = torch.randint(256, (4, SHAPE.block_size + 1), generator=generator)
        if one.curvature_due(step):
            uniform = torch.rand(4, SHAPE.block_size, generator=generator)
            gradients.append(_backward(reference, model, rows, uniform))
            for optimizer in (one, two):
                optimizer.update_curvature(rows.numel())
                optimizer.zero_grad(set_to_none=True)
        with (
            optim.watched_logits(one, reference, step, lambda x: x),
            optim.watched_logits(two, model, step, lambda x: x),
        ):
            gradients.append(_backward(reference, model, rows))
        for optimizer in (one, two):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    ends = [p.detach() for p in reference.parameters()]
    found = [p.detach().cpu().double() for p in model.parameters()]
    way = _norm(p - q for p, q in zip(ends, start, strict=True))
    moved = _norm(p - q for p, q in zip(found, start, strict=True))
    apart = _norm(p - q for p, q in zip(ends, found, strict=True))
    return apart / way, moved / way, gradients[0], OF_MATRICES if matrices else TOLERANCE


def _optimizer(name: str, model: GPT, compiled: bool) -> optim.Optimizer:
    """By its preset; in a run of 100 updates."""
    table = preset(name, SHAPE.n_head)
    optimizer = build_optimizer(
        table.pop("name"), model.parameter_groups(), total_steps=100, **table
    )
    optimizer.compile = compiled  # type: ignore[attr-defined]
    optimizer.check_gradients = False  # as in the training loop
    return optimizer


def _backward(
    reference: GPT, model: GPT, rows: torch.Tensor, targets: torch.Tensor | None = None
) -> float:
    """Gradients of both; the model then has the reference's. Returns how far apart they were."""
    for each in (reference, model):
        given = rows.to(next(each.parameters()).device)
        labels = given[:, 1:] if targets is None else targets.to(given.device)
        each(given[:, :-1], labels).backward()
    pairs = list(zip(reference.parameters(), model.parameters(), strict=True))
    apart = _norm(p.grad - q.grad.cpu().double() for p, q in pairs)  # type: ignore[union-attr, operator]
    whole = _norm(p.grad for p, _ in pairs)  # type: ignore[misc]
    for p, q in pairs:
        q.grad = p.grad.to(q)  # type: ignore[union-attr]
    return apart / whole


def _norm(tensors: Iterator[torch.Tensor]) -> float:
    return math.sqrt(sum(float(t.square().sum()) for t in tensors))
