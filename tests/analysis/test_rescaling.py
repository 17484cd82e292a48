"""Dinh's point: other weights, the same function, another sharpness; and one that stays."""

import math

import pytest
import torch

from analysis.curvature import largest_eigenvalues, trace
from analysis.loss import Loss
from analysis.neighbourhood import adaptive, keskar
from analysis.rescaling import rescaled
from tests.analysis.test_curvature import small_gpt


def measures(model, batch):
    loss = Loss.of(model, batch, rows=3)
    return {
        "loss": loss.value(),
        "eigenvalue": largest_eigenvalues(loss, 1)[0],
        "trace": trace(loss, 20)[0],
        "keskar": keskar(loss, 1e-3, 8),
        "adaptive": adaptive(loss, 1e-2, 8),
    }


@pytest.mark.parametrize("alpha", [0.25, 3.0])
def test_a_rescaled_gpt_computes_the_same_logits_with_other_weights(alpha):
    model, batch = small_gpt()
    other = rescaled(model, alpha)
    moved = [
        name
        for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    layers = ("ln_1", "ln_2", "c_attn", "attn.c_proj", "c_fc")
    assert {next(x for x in layers if x in name) for name in moved} == set(layers)
    logits = model.logits(batch[:, :-1]), other.logits(batch[:, :-1])
    if alpha == 0.25:  # a power of two: not a bit
        assert torch.equal(*logits)
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)


def test_rescaling_changes_plain_sharpness_and_not_the_adaptive_one():
    model, batch = small_gpt()
    here, there = measures(model, batch), measures(rescaled(model, 8.0), batch)
    assert there["loss"] == here["loss"]
    assert there["adaptive"] == pytest.approx(here["adaptive"], rel=1e-5)
    for name in ("eigenvalue", "trace", "keskar"):
        assert abs(math.log(there[name] / here[name])) > math.log(2), name
