"""What an optimizer multiplies a gradient by, read from its state, against what a step does."""

from pathlib import Path

import pytest
import torch

import optim
from analysis.preconditioner import Preconditioner, preconditioner
from analysis.trained import Origin
from configs import load
from record.checkpoints import Checkpoint, Progress
from tests.jobs import command
from train_gpt2 import GPT

PLAIN = {  # without momentum
    "sgd": ["momentum", "0"],
    "adam": ["betas", "[0.0, 0.9]"],
    "adamw": ["betas", "[0.0, 0.9]", "amsgrad", "true"],
    "nadamw": ["betas", "[0.0, 0.9]"],
    "adam_mini": ["betas", "[0.0, 0.9]", "n_head", "2"],
    "rmsprop": ["momentum", "0"],
    "adagrad": ["lr_decay", "0.1"],
    "sgd_sai": ["momentum", "0"],
    "sgd_sqrtn": ["momentum", "0", "normalise", "true"],
}


def configured(*words):
    flags = [f"--{w}" if i % 2 == 0 else w for i, w in enumerate(words)]
    return optim.resolve(load([*command(Path("nowhere"), Path("nowhere")), *flags]))


def after_updates(config, updates):
    """Where a run stands after updates with one gradient; that, and how its weights last moved."""
    model = GPT.initialised(config.model, 1)
    optimizer = optim.optimizer_of(config, model.parameter_groups())
    generator = torch.Generator().manual_seed(5)
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = 0.01 + torch.rand(p.shape, generator=generator)
    for _ in range(updates):
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.step()
    moved = [(p.detach() - b) / p.grad for p, b in zip(model.parameters(), before, strict=True)]
    state = Checkpoint("run", "", Progress(), model.state_dict(), optimizer.state_dict())
    origin = Origin(Path(), config, Path(), state)
    return preconditioner(origin, model), torch.cat([x.reshape(-1) for x in moved])


@pytest.mark.parametrize("name", PLAIN)
def test_factors_are_what_a_step_multiplies_the_gradient_by(name):
    keys = PLAIN[name]
    own = [f"optimizer.{w}" if i % 2 == 0 else w for i, w in enumerate(keys)]
    decay = [] if name in ("rmsprop", "sgd", "adagrad", "adam") else ["optimizer.weight_decay", "0"]
    ratio = ["optimizer.roles.embedding.lr_ratio", "0.25"]
    config = configured("optimizer.name", name, *own, *decay, *ratio, "optimizer.lr", "1.0")
    found, moved = after_updates(config, 5)
    assert isinstance(found, Preconditioner)
    assert (found.lr, found.limit) == (1.0, 2.0)
    torch.testing.assert_close(found.factors, -moved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (["sgd", "momentum", "0.9"], lambda b, g: (0.9 * b + g, 0.9 * b + g)),
        (
            ["sgd", "momentum", "0.9", "nesterov", "true"],
            lambda b, g: (0.9 * b + g, 0.9 * (0.9 * b + g) + g),
        ),
        (["adamw", "betas", "[0.9, 0.95]"], lambda b, g: (0.9 * b + 0.1 * g, 0.9 * b + 0.1 * g)),
        (
            ["nadamw", "betas", "[0.8, 0.95]"],
            lambda b, g: (0.8 * b + 0.2 * g, 0.8 * (0.8 * b + 0.2 * g) + 0.2 * g),
        ),
        (["sgd_sai", "momentum", "0.5"], lambda b, g: (0.5 * b + 0.5 * g, 0.5 * b + 0.5 * g)),
    ],
)
def test_steps_on_a_quadratic_converge_below_the_limit_and_not_above(words, step):
    name, *keys = words
    own = [f"optimizer.{w}" if i % 2 == 0 else w for i, w in enumerate(keys)]
    found, _ = after_updates(configured("optimizer.name", name, *own), 1)
    for factor, converges in ((0.98, True), (1.02, False)):
        place, buffer = 1.0, 0.0
        for _ in range(3000):
            buffer, update = step(buffer, place)
            place -= factor * found.limit * update
            if abs(place) > 1e6:
                break
        assert (abs(place) < 1) == converges


@pytest.mark.parametrize(
    ("words", "updates", "said"),
    [
        (["optimizer.name", "lion"], 1, "lion does not multiply each element"),
        (["optimizer.name", "adamw"], 0, "adamw has made no update"),
        (["optimizer.wrap.ema.judged", "true"], 1, "optimizer.wrap.ema changes"),
        (["optimizer.roles.vector.betas", "[0.5, 0.9]"], 1, "the momentum of roles differs"),
        (["optimizer.lr", "0.0"], 1, "a learning rate of 0"),
    ],
)
def test_what_is_not_known_is_said(words, updates, said):
    found, _ = after_updates(configured(*words), updates)
    assert said in found


def test_an_average_beside_the_weights_changes_nothing():
    with_ema, _ = after_updates(configured("optimizer.wrap.ema.decay", "0.9"), 2)
    without, _ = after_updates(configured(), 2)
    assert torch.equal(with_ema.factors, without.factors)
