"""A rule of one's own: what a subclass of UpdateRule writes, and what the base gives it."""

import copy
import inspect
import pickle

import pytest
import torch

from optim import build_optimizer
from optim.core.base import UpdateRule
from optim.core.batch import Params, State, Tensors, Values
from optim.core.hyperparameters import Beta, NonNegative, schema
from optim.core.matrix import MatrixRule


class Rule(UpdateRule):
    """Momentum with decoupled decay."""

    buffers = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 0.1,
        momentum: Beta = 0.5,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(params, locals())

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        b = state["momentum_buffer"]
        torch._foreach_lerp_(b, grads, 1 - h["momentum"])
        torch._foreach_mul_(params, c["decay"])
        torch._foreach_sub_(params, torch._foreach_mul(b, c["lr"]))


def test_the_signature_is_the_only_place_of_a_hyperparameter():
    optimizer = Rule([torch.ones(2)], momentum=0.25)
    assert optimizer.defaults == {"lr": 0.1, "momentum": 0.25, "weight_decay": 0.0}
    assert list(inspect.signature(Rule).parameters) == ["params", *optimizer.defaults]
    assert schema(Rule)["momentum"] == (Beta, 0.5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'momentom'"):
        Rule([torch.ones(2)], momentom=0.25)


def test_the_base_gives_state_lr_and_decay():
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = Rule([p], lr=0.1, momentum=0.5, weight_decay=0.2)
    for _ in range(2):
        p.grad = torch.ones_like(p)
        optimizer.step()
    # b = 0.5, then 0.75; p * 0.98 - 0.1 * b, twice
    expected = [(x * 0.98 - 0.05) * 0.98 - 0.075 for x in (1, -2)]
    assert p.tolist() == pytest.approx(expected, rel=1e-15)
    assert optimizer.state[p]["momentum_buffer"].tolist() == [0.75, 0.75]


@pytest.mark.parametrize("base", [UpdateRule, MatrixRule])
def test_a_rule_without_its_mathematics_does_not_pass_for_one(base):
    class Empty(base):
        def __init__(self, params: Params, *, lr: NonNegative = 0.1) -> None:
            super().__init__(params, locals())

    p = torch.nn.Parameter(torch.ones(2, 2))
    p.grad = torch.ones_like(p)
    with pytest.raises(NotImplementedError):
        Empty([p]).step()


def test_a_dictionary_of_hyperparameters_serves_as_well_as_locals():
    class Plain(Rule):
        def __init__(self, params: Params, *, lr: float = 0.2) -> None:
            UpdateRule.__init__(self, params, {"lr": lr, "momentum": 0.0})

    assert Plain([torch.ones(2)]).defaults == {"lr": 0.2, "momentum": 0.0}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("name", ["adamw", "lion", "torch.optim.Adamax"])
def test_a_copy_still_checks_its_gradients_once(name, copied):
    p = torch.nn.Parameter(torch.ones(2))
    again = copied(build_optimizer(name, [p], lr=0.1))
    again.load_state_dict(again.state_dict())
    (own,) = again.param_groups[0]["params"]
    own.grad = torch.tensor([1.0, torch.nan])
    with pytest.raises(RuntimeError, match="is not finite; nothing was changed"):
        again.step()
    assert own.tolist() == [1.0, 1.0]
    assert len(again._optimizer_step_pre_hooks) == 1


def test_train_and_eval_are_names_of_the_modes():
    """Hugging Face's Trainer and accelerate call these, where an optimizer has them."""
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = build_optimizer("schedule_free_sgd", [p], lr=0.1)
    for step in range(3):
        p.grad = torch.full((2,), float(step))
        optimizer.step()
    y = p.detach().clone()
    optimizer.eval()
    assert not torch.equal(p, y)
    optimizer.train()
    assert torch.equal(p, y)


@pytest.mark.parametrize("name", ["adamw", "lion", "torch.optim.Adamax"])
def test_a_rate_set_before_torchs_scheduler_is_the_one_it_scales(name):
    optimizer = build_optimizer(name, [torch.nn.Parameter(torch.ones(2))], lr=0.1)
    optimizer.param_groups[0]["lr"] = 0.5
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.25
