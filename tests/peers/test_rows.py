"""What other projects' suites ask of every optimizer, and our contract does not."""

import copy
import functools

import pytest
import torch

import optim
from optim import OPTIMIZERS
from optim.core.base import UpdateRule

build_optimizer = functools.partial(optim.build_optimizer, total_steps=100)
every_row = pytest.mark.parametrize("name", OPTIMIZERS)


@every_row
@pytest.mark.parametrize("shape", [(0,), (0, 6), (18, 0)])
def test_a_parameter_without_elements_changes_nothing_for_the_others(
    name, shape, parameters, groups, replay
):
    """A layer of width 0, or the part of a sharded tensor that a rank does not have."""
    alone, beside = parameters(), parameters()
    replay(build_optimizer(name, groups(alone)), alone, last=3)
    given = groups(beside)
    empty = torch.nn.Parameter(torch.zeros(shape))
    given[len(shape)]["params"].append(empty)
    given[len(shape)]["names"] = [*given[len(shape)]["names"], "empty"]
    optimizer = build_optimizer(name, given)
    empty.grad = torch.zeros(shape)
    replay(optimizer, beside, last=2)
    optimizer.load_state_dict(optimizer.state_dict())
    replay(optimizer, beside, first=2, last=3)
    assert all(torch.equal(alone[key], beside[key]) for key in alone)


@every_row
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_state_of_a_float32_model_goes_on_in_another_precision(
    name, dtype, parameters, groups, replay
):
    """The same values, in the dtypes of state that was made in that precision."""
    saved = build_optimizer(name, groups(named := parameters()), lr=1e-3)
    replay(saved, named, last=3)
    other, fresh = ({key: cast(p, dtype) for key, p in named.items()} for _ in range(2))
    optimizer = build_optimizer(name, groups(other), lr=1e-3)
    optimizer.load_state_dict(copy.deepcopy(saved.state_dict()))
    for key, p in named.items():
        for entry, value in saved.state[p].items():
            loaded = torch.as_tensor(optimizer.state[other[key]][entry])
            assert torch.allclose(loaded.float(), torch.as_tensor(value).float(), rtol=1e-2), entry
    reference = build_optimizer(name, groups(fresh), lr=1e-3)
    replay_in(dtype, reference, fresh)
    replay_in(dtype, optimizer, other)
    if isinstance(optimizer, UpdateRule):  # torch casts all its state
        assert dtypes(optimizer, other) == dtypes(reference, fresh)


def cast(p, dtype):
    return torch.nn.Parameter(p.detach().to(dtype))


def replay_in(dtype, optimizer, named):
    """The fourth gradients of `replay`, in `dtype`."""
    for index, p in enumerate(named.values()):
        generator = torch.Generator().manual_seed(300 + index)
        p.grad = torch.randn(p.shape, generator=generator).to(dtype)
    optimizer.step()


def dtypes(optimizer, named):
    """Of the tensors of each parameter's state, by name."""
    return {
        key: {k: v.dtype for k, v in optimizer.state[p].items() if torch.is_tensor(v)}
        for key, p in named.items()
    }


@every_row
def test_a_count_of_steps_may_be_a_tensor_in_a_loaded_state(name, parameters, groups, replay):
    """As torch's own optimizers keep it, and tools that make one tensor of everything."""
    through, resumed = parameters(), parameters()
    optimizer = build_optimizer(name, groups(through))
    replay(optimizer, through, last=3)
    again = build_optimizer(name, groups(resumed))
    state = copy.deepcopy(optimizer.state_dict())
    for values in state["state"].values():
        if "step" in values:
            values["step"] = torch.tensor(float(values["step"]))
    for key, p in resumed.items():
        p.data.copy_(through[key])
    again.load_state_dict(state)
    replay(optimizer, through, first=3, last=5)
    replay(again, resumed, first=3, last=5)
    assert all(torch.equal(through[key], resumed[key]) for key in through)


@every_row
def test_a_deep_copy_goes_on_to_the_same_bits_and_a_closure_gives_its_loss(
    name, parameters, groups, replay
):
    named = parameters()
    optimizer = build_optimizer(name, groups(named))
    replay(optimizer, named, last=3)
    copied, again = copy.deepcopy((named, optimizer))
    replay(optimizer, named, first=3, last=5)
    replay(again, copied, first=3, last=5)
    assert all(torch.equal(named[key], copied[key]) for key in named)

    def closure():
        assert torch.is_grad_enabled()
        return torch.tensor(2.5)

    assert again.step(closure).item() == 2.5
