"""torch.compile around the whole step, as some loops have it: the numbers of the plain step."""

import pytest
import torch

from optim import build_optimizer
from tests.optim import oracles_matrix as oracles

SHAPES = {"tall": (24, 16), "square": (16, 16), "bias": (16,)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "sgd_sai", "soap"])
def test_a_step_may_be_compiled_as_a_whole(name):
    """Of SOAP inductor 2.13 once made another product, of p.add_(a @ b.mT, alpha=...)."""
    results = []
    for compiled in (False, True):
        named = oracles.named_parameters(torch.float32, SHAPES)
        groups = [{"params": [p], "names": [key]} for key, p in named.items()]
        roles = ("hidden", "hidden", "vector")
        groups = [group | {"role": role} for group, role in zip(groups, roles, strict=True)]
        optimizer = build_optimizer(name, groups, lr=0.01)
        optimizer.check_gradients = False
        if compiled:
            optimizer.step = torch.compile(optimizer.step)
        before = {key: p.detach().clone() for key, p in named.items()}
        results.append(oracles.replay(optimizer, named, steps=4))
        assert all(not torch.equal(before[key], p) for key, p in named.items())
    assert oracles.distance(results[1], {k: p.detach() for k, p in results[0].items()}) < 1e-5
