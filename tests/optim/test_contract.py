"""What every optimizer of the table keeps to; a new row is covered without a new test."""

import copy
import inspect
import io
import typing

import pytest
import torch

from configs.typing import ConfigError
from optim import OPTIMIZERS, build_optimizer, optimizer_state_bytes, resolve_optimizer
from optim.base import Optimizer

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def with_decay(name, value=0.1):
    return {"weight_decay": value} if "weight_decay" in resolve_optimizer(name, {}) else {}


def copies(named):
    return {key: p.detach().clone() for key, p in named.items()}


def same_bits(one, two):
    return all(torch.equal(one[key], two[key]) for key in one)


@every_optimizer
def test_docstring_has_its_sections(name):
    text = inspect.getdoc(OPTIMIZERS[name])
    if not all(f"\n{section}:" in text for section in ("Source", "Differs", "Tuning", "State")):
        text = inspect.getdoc(inspect.getmodule(OPTIMIZERS[name]))  # one file per optimizer
    places = [text.index(f"\n{s}:") for s in ("Source", "Differs", "Tuning", "State")]
    assert places == sorted(places)
    assert "p <- p" in text or "theta" in text, "the update, in the paper's order"


@every_optimizer
def test_hyperparameters_are_typed_keywords_with_defaults(name):
    signature = inspect.signature(OPTIMIZERS[name])
    hints = typing.get_type_hints(OPTIMIZERS[name].__init__)
    params, *rest = signature.parameters.values()
    assert params.name == "params"
    for parameter in rest:
        assert parameter.kind is parameter.KEYWORD_ONLY, parameter.name
        assert parameter.default is not parameter.empty, parameter.name
        assert parameter.name in hints
    assert "lr" in signature.parameters
    switches = {"foreach", "fused", "capturable", "differentiable", "maximize"}
    assert not switches & set(signature.parameters), "how it is computed is no hyperparameter"


@every_optimizer
def test_resolved_is_complete_and_resolves_to_itself(name):
    resolved = resolve_optimizer(name, {"lr": 1})
    assert resolved["lr"] == 1.0
    assert type(resolved["lr"]) is float
    assert resolve_optimizer(name, resolved) == resolved
    written = {k: list(v) if isinstance(v, tuple) else v for k, v in resolved.items()}  # as TOML
    assert resolve_optimizer(name, written) == resolved


@every_optimizer
def test_is_a_torch_optimizer_with_hooks(name, parameters, groups):
    optimizer = build_optimizer(name, groups(parameters()))
    assert isinstance(optimizer, OPTIMIZERS[name])
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(optimizer, Optimizer)
    optimizer.train_mode()
    optimizer.eval_mode()
    assert isinstance(optimizer.diagnostics(), dict)


@every_optimizer
def test_groups_keep_their_extra_keys_and_base_rate(name, parameters, groups):
    given = groups(parameters())
    before = copy.copy(given[0])
    optimizer = build_optimizer(name, [*given[:2], {**given[2], "lr": 0.5}], lr=0.25)
    assert [g["role"] for g in optimizer.param_groups] == ["embedding", "hidden", "vector"]
    assert [g["names"] for g in optimizer.param_groups] == [g["names"] for g in given]
    assert [g["initial_lr"] for g in optimizer.param_groups] == [0.25, 0.25, 0.5]
    assert [g["lr"] for g in optimizer.param_groups] == [0.25, 0.25, 0.5]
    assert given[0].keys() == before.keys(), "the caller's groups were written into"


@every_optimizer
def test_plain_iterables_work(name, parameters, replay):
    for given in (lambda named: iter(named.values()), lambda named: [{"params": named.values()}]):
        named = parameters()
        optimizer = build_optimizer(name, given(named))
        assert len(optimizer.param_groups[0]["params"]) == len(named)
        before = copies(named)
        replay(optimizer, named, last=2)
        assert not any(torch.equal(before[key], p) for key, p in named.items())


@every_optimizer
def test_lr_0_moves_nothing(name, parameters, groups, replay):
    named = parameters()
    before = copies(named)
    replay(build_optimizer(name, groups(named), lr=0.0, **with_decay(name)), named)
    assert same_bits(before, named)


@every_optimizer
def test_the_groups_lr_is_what_the_next_step_uses(name, parameters, groups, replay):
    named = parameters()
    optimizer = build_optimizer(name, groups(named), **with_decay(name))
    replay(optimizer, named, last=3)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = copies(named)
    replay(optimizer, named, 3, 6)
    assert same_bits(before, named)


@every_optimizer
def test_gradients_are_left_alone(name, parameters, groups, replay):
    named = parameters()
    optimizer = build_optimizer(name, groups(named), **with_decay(name))
    replay(optimizer, named, last=2)
    before = {key: p.grad.clone() for key, p in named.items()}
    optimizer.step()
    assert same_bits(before, {key: p.grad for key, p in named.items()})


@every_optimizer
def test_a_parameter_without_gradient_is_skipped(name, parameters, groups, replay):
    named = parameters()
    optimizer = build_optimizer(name, groups(named), **with_decay(name))
    rest = {key: p for key, p in named.items() if key != "c_proj"}
    before = copies(named)
    replay(optimizer, rest)
    assert torch.equal(named["c_proj"], before["c_proj"])
    assert not torch.equal(named["c_attn"], before["c_attn"])


@every_optimizer
def test_resume_is_exact(name, parameters, groups, replay):
    through = parameters()
    replay(build_optimizer(name, groups(through), **with_decay(name)), through)

    first = parameters()
    optimizer = build_optimizer(name, groups(first), **with_decay(name))
    replay(optimizer, first, last=5)
    file = io.BytesIO()
    torch.save({"weights": copies(first), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    second = parameters()
    for key, p in second.items():
        p.data.copy_(saved["weights"][key])
    resumed = build_optimizer(name, groups(second), **with_decay(name))
    resumed.load_state_dict(saved["optimizer"])
    replay(resumed, second, first=5)
    assert same_bits(through, second)
    assert [g["role"] for g in resumed.param_groups] == ["embedding", "hidden", "vector"]


@every_optimizer
def test_does_not_depend_on_global_random_state(name, parameters, groups, replay):
    results = []
    for seed in (1, 2):
        named = parameters()
        torch.manual_seed(seed)
        results.append(replay(build_optimizer(name, groups(named)), named))
    assert same_bits(*results)


@every_optimizer
def test_order_of_parameters_is_irrelevant(name, parameters, groups, replay):
    one, two = parameters(), parameters()
    replay(build_optimizer(name, groups(one)), one)
    turned = [
        {**g, "params": g["params"][::-1], "names": g["names"][::-1]} for g in groups(two)[::-1]
    ]
    replay(build_optimizer(name, turned), two)
    assert same_bits(one, two)


@every_optimizer
def test_a_groups_own_weight_decay_wins(name, parameters, groups):
    if not with_decay(name):
        pytest.skip("has no weight decay")
    named = parameters()
    before = copies(named)
    optimizer = build_optimizer(name, groups(named), lr=0.1, weight_decay=0.1)
    for p in named.values():
        p.grad = torch.zeros_like(p)
    for _ in range(2):  # some only look at their first gradient
        optimizer.step()
    for group in optimizer.param_groups:
        moved = [not torch.equal(before[key], named[key]) for key in group["names"]]
        assert moved == [group["role"] != "vector"] * len(moved), group["role"]


@every_optimizer
def test_descends_a_quadratic(name, parameters, groups):
    """At its default lr or ten or a hundred times it: defaults are for models, not for bowls."""

    def descends(lr):
        named = parameters()
        optimizer = build_optimizer(name, groups(named), lr=lr)
        losses = []
        for _ in range(150):
            loss = sum((p**2).sum() for p in named.values())
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return losses[-1] < 0.7 * losses[0]

    default = resolve_optimizer(name, {})["lr"]
    assert any(descends(default * factor) for factor in (1, 10, 100))


@every_optimizer
def test_state_bytes_count_every_tensor(name, parameters, groups, replay):
    named = parameters()
    optimizer = build_optimizer(name, groups(named))
    replay(optimizer, named, last=1)
    tensors = [t for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t)]
    assert optimizer_state_bytes(optimizer) == sum(t.nbytes for t in tensors)


@every_optimizer
@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"lrr": 1.0}, r"^unknown key 'optimizer.lrr'; did you mean 'lr'\? \(valid: .*lr"),
        ({"lr": True}, r"^optimizer.lr = True: should be a valid number$"),
        ({"lr": "1e-3"}, r"^optimizer.lr = '1e-3': should be a valid number$"),
        ({"lr": -1.0}, r"^optimizer.lr = -1.0: should be greater than or equal to 0$"),
        ({"lr": float("inf")}, r"^optimizer.lr = inf: should be a finite number$"),
        ({"fused": True}, r"^unknown key 'optimizer.fused'"),
    ],
)
def test_mistakes_are_named_in_one_line(name, hyperparameters, message, parameters):
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_optimizer(name, hyperparameters)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=message):
        build_optimizer(name, parameters().values(), **hyperparameters)
