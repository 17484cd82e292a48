"""The model as the loop calls it: compile modes, and weights in bfloat16."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from configs import Model
from launch.calls import Bfloat16Weights, called
from train_gpt2 import GPT

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPE = Model(vocab_size=97, block_size=24, n_layer=2, n_head=4, n_embd=64)


@pytest.mark.parametrize(
    ("setting", "device", "mode"),
    [
        ("auto", CPU, "not compiled"),
        ("auto", CUDA, None),
        (False, CUDA, "not compiled"),
        (True, CPU, None),
        ("max-autotune", CPU, "max-autotune-no-cudagraphs"),
    ],
)
def test_a_setting_compiles_in_its_mode(monkeypatch, setting, device, mode):
    asked = ["not compiled"]
    monkeypatch.setattr(torch, "compile", lambda f, *, dynamic, mode: asked.append(mode) or f)
    model = nn.Linear(1, 1)
    settings = SimpleNamespace(dtype="float32", compile=setting)
    assert called(model, settings, device) is model
    assert asked[-1] == mode


def by_hand(model, tokens, targets):
    """A copy of the model with its matrices in bfloat16, and its loss."""
    half = GPT.initialised(SHAPE, seed=0)
    half.load_state_dict(model.state_dict())
    for p in half.parameters():
        if p.ndim > 1:
            p.data = p.data.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        return half, half(tokens, targets)


def batches(count):
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(97, (count, 3, 25), generator=generator)
    return [(part[:, :-1], part[:, 1:]) for part in tokens]


@pytest.mark.parametrize("recomputes", [False, True])
def test_it_is_the_model_with_matrices_in_bfloat16_whose_gradients_add_up_in_float32(recomputes):
    model = GPT.initialised(SHAPE, seed=1)
    model.recomputes = recomputes  # in the backward pass, where the copies are no longer in place
    module = Bfloat16Weights(model, False, CPU)
    assert [*module.parameters()] == [*model.parameters()]
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for tokens, targets in batches(3):
        with torch.autocast("cpu", torch.bfloat16):
            loss = module(tokens, targets)
        loss.backward()
        half, other = by_hand(model, tokens, targets)
        other.backward()
        assert torch.equal(loss, other)
        for name, p in half.named_parameters():
            expected[name] += p.grad.float()
    for name, p in model.named_parameters():
        assert p.dtype == p.grad.dtype == torch.float32
        assert torch.equal(p.grad, expected[name]), name


@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_its_gradients_are_as_near_to_those_of_float32_as_autocasts(monkeypatch, backend):
    compiled = torch.compile
    if backend:
        monkeypatch.setattr(
            torch, "compile", lambda f, **options: compiled(f, backend=backend, dynamic=False)
        )
    model = GPT.initialised(SHAPE, seed=1)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
    found = {}
    tokens, targets = batches(1)[0]
    for name, module in (
        ("float32", model),
        ("autocast", model),
        ("weights", Bfloat16Weights(model, backend is not None, CPU)),
    ):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=name != "float32"):
            loss = module(tokens, targets)
        loss.backward()
        found[name] = torch.cat(
            [loss.detach().view(1), *(p.grad.flatten() for p in model.parameters())]
        )
    distance = {name: (x - found["float32"]).norm() for name, x in found.items()}
    assert 0 < distance["weights"] < 2 * distance["autocast"]
    torch._dynamo.reset()


def test_copies_are_made_once_for_all_passes_of_an_update(monkeypatch):
    model = GPT.initialised(SHAPE, seed=1)
    module = Bfloat16Weights(model, False, CPU)
    made, copy = [], torch._foreach_copy_
    monkeypatch.setattr(torch, "_foreach_copy_", lambda *tensors: made.append(1) or copy(*tensors))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for update in (1, 2):
        for tokens, targets in batches(3):
            with torch.autocast("cpu", torch.bfloat16):
                loss = module(tokens, targets)
            loss.backward()
        assert len(made) == update
        optimizer.step()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # an evaluation is up to date
            assert torch.equal(module(tokens, targets), by_hand(model, tokens, targets)[1])
        made.pop()
        optimizer.zero_grad(set_to_none=True)
