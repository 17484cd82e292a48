"""Parameters, groups and gradients that the tests of optimizers replay."""

import pytest
import torch

SHAPES = {"wte": (10, 6), "c_attn": (18, 6), "c_proj": (6, 24), "bias": (18,), "ln": (6,)}
ROLES = {"embedding": ["wte"], "hidden": ["c_attn", "c_proj"], "vector": ["bias", "ln"]}


@pytest.fixture
def parameters():
    """Factory of equal parameters by name, as in a small GPT-2."""

    def make():
        generator = torch.Generator().manual_seed(1)
        return {
            name: torch.nn.Parameter(0.1 * torch.randn(shape, generator=generator))
            for name, shape in SHAPES.items()
        }

    return make


@pytest.fixture
def groups():
    """Factory of the groups that the trainer's model gives: by role, vectors without decay."""

    def make(named):
        made = []
        for role, names in ROLES.items():
            group = {"params": [named[name] for name in names], "names": names, "role": role}
            made.append({**group, "weight_decay": 0.0} if role == "vector" else group)
        return made

    return make


@pytest.fixture
def replay():
    """Take steps with recorded gradients, the same for every call; returns the parameters."""

    def take(optimizer, named, first=0, last=12):
        for step in range(first, last):
            for index, p in enumerate(named.values()):
                generator = torch.Generator().manual_seed(100 * step + index)
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
        return named

    return take
