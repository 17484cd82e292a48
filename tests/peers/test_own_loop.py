"""docs/optimizers.md, "In your own loop": its code runs as written, with every row."""

import re
import tomllib
import warnings

import pytest
import torch

import train_gpt2
from configs import Model
from optim import OPTIMIZERS
from tests.jobs import ROOT

SHAPE = Model(vocab_size=16, block_size=16, n_layer=1, n_head=2, n_embd=24)
(BLOCK,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/optimizers.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def page():
    names = {}
    exec(BLOCK, names)
    return names


def test_the_groups_of_the_page_are_those_of_the_trainer(page):
    model = train_gpt2.GPT.initialised(SHAPE, seed=1)
    assert page["groups"](model) == model.parameter_groups()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_loop_of_the_page_learns_without_a_warning(name, page):
    preset = tomllib.loads((ROOT / f"configs/optimizer/{name}.toml").read_text())["optimizer"]
    settings = {key: value for key, value in preset.items() if key != "name"}
    if "n_head" in settings:
        settings["n_head"] = SHAPE.n_head
    model = train_gpt2.GPT.initialised(SHAPE, seed=1)
    tokens = (torch.arange(8)[:, None] + torch.arange(17)) % 16
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    before = model(inputs, targets).item()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page["train"](
            model,
            name,
            60,
            lambda step: (inputs, targets),
            lambda inputs: torch.rand(inputs.shape),  # our model draws labels from uniform numbers
            **settings,
        )
    assert model(inputs, targets).item() < before - 0.05
