"""torch.amp.GradScaler beside every row, as mixed precision in float16 uses it."""

import functools

import pytest
import torch

import optim
from optim import OPTIMIZERS

build_optimizer = functools.partial(optim.build_optimizer, total_steps=100)


@pytest.mark.parametrize("name", [*OPTIMIZERS, "torch.optim.Adamax"])
def test_a_step_that_overflows_is_skipped_and_the_others_are_those_without_a_scaler(
    name, parameters, groups
):
    """The scale is a power of two, so that dividing by it is exact."""
    scaled, plain = parameters(), parameters()
    ours = build_optimizer(name, groups(scaled), lr=1e-3)
    bare = build_optimizer(name, groups(plain), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        loss = sum((p**2).sum() for p in scaled.values())
        ours.zero_grad()
        scaler.scale(loss).backward()
        if step == 1:  # as a float16 overflow does
            scaled["ln"].grad[0] = torch.inf
            before = {key: p.detach().clone() for key, p in scaled.items()}
        scaler.step(ours)
        scaler.update()
        if step == 1:
            assert all(torch.equal(before[key], scaled[key]) for key in before)
            continue
        bare.zero_grad()
        sum((p**2).sum() for p in plain.values()).backward()
        bare.step()
    assert scaler.get_scale() == 512.0
    assert all(torch.equal(plain[key], scaled[key]) for key in plain)


def test_torchs_own_fused_class_skips_by_itself(parameters):
    """By its dotted path: the scaler leaves the overflow to the kernel, and so does our check."""
    named = parameters()
    optimizer = build_optimizer("torch.optim.AdamW", named.values(), lr=1e-3, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(sum((p**2).sum() for p in named.values())).backward()
    named["ln"].grad[0] = torch.inf
    before = {key: p.detach().clone() for key, p in named.items()}
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(before[key], named[key]) for key in before)
