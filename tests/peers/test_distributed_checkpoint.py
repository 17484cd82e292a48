"""torch.distributed.checkpoint's form of optimizer state, as FSDP users save it, with every row."""

import copy
import tomllib

import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import train_gpt2
from configs import Model
from optim import OPTIMIZERS, build_optimizer
from tests.jobs import ROOT

SHAPE = Model(vocab_size=16, block_size=16, n_layer=1, n_head=2, n_embd=24)


def start(name):
    preset = tomllib.loads((ROOT / f"configs/optimizer/{name}.toml").read_text())["optimizer"]
    settings = {key: value for key, value in preset.items() if key != "name"}
    if "n_head" in settings:
        settings["n_head"] = SHAPE.n_head
    model = train_gpt2.GPT.initialised(SHAPE, seed=1)
    groups = model.parameter_groups()
    return model, build_optimizer(name, groups, total_steps=100, **settings)


def steps(model, optimizer, count):
    tokens = (torch.arange(4)[:, None] + torch.arange(17)) % 16
    for _ in range(count):
        optimizer.zero_grad()
        model(tokens[:, :-1], tokens[:, 1:]).backward()
        optimizer.step()


@pytest.mark.filterwarnings("ignore:SophiaG has no estimate")
@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resume_is_exact(name, flat):
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, optimizer = start(name)
    steps(model, optimizer, 3)
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    resumed, again = start(name)
    resumed.load_state_dict(model.state_dict())
    set_optimizer_state_dict(resumed, again, saved, options=options)
    steps(model, optimizer, 2)
    steps(resumed, again, 2)
    for (key, p), other in zip(model.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, other), key
