"""GaLore against pytorch_optimizer's, a slow oracle, and Adam in a rotated basis."""

import pytest
import pytorch_optimizer
import torch

from optim import build_optimizer
from tests.optim import oracles_matrix as oracles

SHAPES = {"tall": (12, 8), "wide": (8, 12), "square": (8, 8), "one": (1, 1)}
BOTH = {"lr": 0.01, "betas": (0.9, 0.8), "eps": 1e-6, "weight_decay": 0.1}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-6)])
def test_equals_the_package(dtype, tolerance):
    """The package takes the SVD in float32. Within one gap, because it counts gaps differently."""
    ours, theirs = (oracles.named_parameters(dtype, SHAPES) for _ in range(2))
    oracles.replay(build_optimizer("galore", ours.values(), rank=4, scale=0.25, **BOTH), ours)
    projection = {"rank": 4, "update_proj_gap": 200, "scale": 0.25, "projection_type": "std"}
    groups = [{"params": list(theirs.values()), **projection}]
    oracles.replay(pytorch_optimizer.GaLore(groups, **BOTH), theirs)
    assert oracles.distance(ours, {k: p.detach() for k, p in theirs.items()}) < tolerance


@pytest.mark.parametrize(("rank", "gap"), [(3, 1), (3, 5), (100, 200)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_the_oracle(rank, gap, dtype, tolerance):
    ours = oracles.named_parameters(dtype, SHAPES)
    optimizer = build_optimizer("galore", ours.values(), rank=rank, update_gap=gap, **BOTH)
    oracles.replay(optimizer, ours)
    theirs = oracles.oracle(
        lambda p: oracles.galore(p, rank=rank, gap=gap, scale=0.25, **BOTH),
        oracles.named_parameters(dtype, SHAPES),
    )
    assert oracles.distance(ours, theirs) < tolerance


def test_of_full_rank_it_is_adam_in_a_rotated_basis():
    named = oracles.named_parameters(shapes={"square": (8, 8)})
    _, _, vh = torch.linalg.svd(oracles.gradient(0, "square", named["square"]))
    rotated = torch.nn.Parameter(named["square"].detach() @ vh.T)
    hyperparameters = {"lr": 0.01, "betas": (0.9, 0.8), "eps": 1e-30}
    galore = build_optimizer("galore", named.values(), rank=8, scale=1.0, **hyperparameters)
    adam = torch.optim.Adam([rotated], **hyperparameters)
    for step in range(12):
        named["square"].grad = oracles.gradient(step, "square", rotated)
        rotated.grad = named["square"].grad @ vh.T
        galore.step()
        adam.step()
    assert torch.allclose(named["square"], rotated @ vh, rtol=0, atol=1e-12)


def test_state_is_as_small_as_promised():
    named = oracles.named_parameters(torch.float32, {"tall": (12, 8), "wide": (8, 20)})
    optimizer = build_optimizer("galore", named.values(), rank=3)
    oracles.replay(optimizer, named, steps=1)
    for p in named.values():
        numbers = sum(t.numel() for t in optimizer.state[p].values() if torch.is_tensor(t))
        assert numbers == 2 * 3 * max(p.shape) + 3 * min(p.shape)
