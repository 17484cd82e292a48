"""The contract of every optimizer in the table; a new row needs no new test."""

import copy
import functools
import inspect
import io
import re
import tomllib
import typing
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import optim
import train_gpt2
from configs import Model
from configs.validation import ConfigError
from optim import (
    OPTIMIZERS,
    optimizer_state_bytes,
    resolve_optimizer,
)
from optim.core.base import Optimizer, UpdateRule
from optim.core.hyperparameters import in_updates

build_optimizer = functools.partial(optim.build_optimizer, total_steps=100)

PRESETS = Path(__file__).parents[2] / "configs" / "optimizer"
OWN = [name for name, cls in OPTIMIZERS.items() if issubclass(cls, UpdateRule)]

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
every_own = pytest.mark.parametrize("name", OWN)

# Bytes of state of an m x n matrix in float32, m > 1, if they are no multiple of its elements. All
# others keep as many bytes per parameter as the State section of their docstring says.
STATE_BYTES = {
    "adafactor": lambda m, n: 4 * (m + n),
    "adam_mini": lambda m, n: 4 * m * n + 4 * m,
    "normuon": lambda m, n: 4 * m * n + 4 * m,
    "muown": lambda m, n: 4 * m * n + 16 * m,
    "soap": lambda m, n: 8 * m * n + 8 * (m * m + n * n),
    "soap_muon": lambda m, n: 8 * m * n + 8 * (m * m + n * n),
    "kl_soap": lambda m, n: 8 * m * n + 8 * (m * m + n * n) + 4 * (m + n),
    "psgd_kron": lambda m, n: 4 * m * n + 4 * (m * m + n * n),
    "shampoo": lambda m, n: 8 * m * n + 8 * (m * m + n * n),
    "galore": lambda m, n: 8 * m * n + 4 * min(m, n) ** 2,  # rank 128 is above m and n
    "apollo": lambda m, n: 8 * m * n,
    "dion": lambda m, n: 4 * m * n + 4 * min(m, n) ** 2 // 2,
}


def documented_bytes(name, m, n):
    if name in STATE_BYTES:
        return STATE_BYTES[name](m, n)
    text = inspect.getdoc(OPTIMIZERS[name])
    said = re.search(r"\nState: (?:none|[^:]+:\s+(\d+)[^.]*?bytes\s+per\s+parameter)", text)
    assert said, f"say in {name}'s docstring: 'State: <its tensors>: <number> bytes per parameter'"
    return int(said[1] or 0) * m * n


def with_decay(name, value=0.1):
    return {"weight_decay": value} if "weight_decay" in resolve_optimizer(name, {}) else {}


def copies(named):
    return {key: p.detach().clone() for key, p in named.items()}


def same_bits(one, two):
    return all(torch.equal(one[key], two[key]) for key in one)


@every_optimizer
def test_docstring_has_its_sections(name):
    text = inspect.getdoc(OPTIMIZERS[name])
    places = [text.index(f"\n{s}:") for s in ("Source", "Differs", "Tuning", "State")]
    assert places == sorted(places)
    assert "p <- p" in text, "the update, in the paper's order"


@every_optimizer
def test_its_file_has_a_test_file(name):
    module = OPTIMIZERS[name].__module__.rpartition(".")[2]
    assert (Path(__file__).parent / f"test_{module}.py").is_file()


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
    if name in OWN:
        defaults = {p.name: p.default for p in rest}
        given = in_updates(OPTIMIZERS[name], defaults, 100, "optimizer")
        optimizer = OPTIMIZERS[name]([torch.nn.Parameter(torch.ones(2, 2))], **given)
        assert optimizer.defaults == given, "and nothing else"
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
def test_groups_keep_their_extra_keys_and_own_rate(name, parameters, groups):
    given = groups(parameters())
    before = copy.copy(given[0])
    optimizer = build_optimizer(name, [*given[:2], {**given[2], "lr": 0.5}], lr=0.25)
    assert [g["role"] for g in optimizer.param_groups] == ["embedding", "hidden", "vector"]
    assert [g["names"] for g in optimizer.param_groups] == [g["names"] for g in given]
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
    rate = {"d0": 1.0} if "d0" in resolve_optimizer(name, {}) else {}  # lr is relative to it
    optimizer = build_optimizer(name, groups(named), lr=0.1, weight_decay=0.1, **rate)
    for p in named.values():
        p.grad = torch.zeros_like(p)
    for _ in range(2):  # some only look at their first gradient
        optimizer.step()
    for group in optimizer.param_groups:
        moved = [not torch.equal(before[key], named[key]) for key in group["names"]]
        assert moved == [group["role"] != "vector"] * len(moved), group["role"]


@every_optimizer
def test_descends_a_quadratic(name, parameters, groups):
    """At 1, 10 or 100 times its default lr, which is made for models, not for quadratics."""

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
def test_state_bytes_are_as_documented(name, replay):
    for m, n in ((64, 32), (16, 128)):
        named = {"p": torch.nn.Parameter(torch.zeros(m, n))}
        optimizer = build_optimizer(name, named.values())
        replay(optimizer, named, last=2)
        numbers = optimizer_state_bytes(optimizer) - documented_bytes(name, m, n)
        assert numbers in (0, 4, 8), "besides, a number or two for each tensor, such as a count"


@every_optimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gradient", [0.0, 1e-30, 1.0])
def test_odd_tensors_stay_finite(name, dtype, gradient):
    """One element, zeros, a constant; gradients that are zero, tiny, or constant."""
    for value, shape in ((0.5, (1,)), (0.0, (4, 3)), (0.5, (4, 3)), (0.5, (1, 1)), (0.5, ())):
        p = torch.nn.Parameter(torch.full(shape, value, dtype=dtype))
        matrix = torch.nn.Parameter(torch.zeros(2, 2))  # some methods need one
        optimizer = build_optimizer(name, [p, matrix], lr=1e-3)
        for _ in range(4):
            p.grad = torch.full_like(p, gradient)
            optimizer.step()
        assert torch.isfinite(p).all(), (value, shape)
        assert (p - value).abs().max() < 1, (value, shape)


@every_optimizer
def test_a_first_gradient_may_come_late(name, parameters, groups, replay):
    """A parameter counts its own steps: it moves as if the run began at its first gradient."""
    if "d0" in resolve_optimizer(name, {}):
        pytest.skip("its step size is estimated from all parameters together")
    late, fresh = parameters(), parameters()
    optimizer = build_optimizer(name, groups(late), **with_decay(name))
    replay(optimizer, {key: p for key, p in late.items() if key != "c_proj"}, last=3)
    grads = torch.randn(3, *late["c_proj"].shape, generator=torch.Generator().manual_seed(5))
    alone = build_optimizer(name, groups(fresh), **with_decay(name))
    for g in grads:
        for named, chosen in ((late, optimizer), (fresh, alone)):
            named["c_proj"].grad = g.clone()
            chosen.step()
    assert torch.equal(late["c_proj"], fresh["c_proj"])


@every_optimizer
def test_its_preset_learns(name):
    """A GPT-2 of two layers learns which of two orders a sequence has."""
    preset = tomllib.loads((PRESETS / f"{name}.toml").read_text())["optimizer"]
    shape = Model(vocab_size=16, block_size=16, n_layer=2, n_head=2, n_embd=24)
    model = train_gpt2.GPT.initialised(shape, seed=1)
    if "n_head" in preset:
        preset["n_head"] = shape.n_head
    optimizer = build_optimizer(preset.pop("name"), model.parameter_groups(), **preset)
    up = torch.arange(17) % 16
    tokens = torch.stack([up.roll(i) if i % 2 else up.flip(0).roll(i) for i in range(8)])
    losses = []
    for _ in range(60):
        loss = model(tokens[:, :-1], tokens[:, 1:])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert losses[-1] < losses[0] - 0.05


@every_own
def test_sparse_gradients_are_refused_before_anything_moves(name, parameters, replay):
    named = parameters()
    group = {"params": list(named.values()), "names": list(named)}
    optimizer = build_optimizer(name, [group])
    replay(optimizer, named, last=2)
    before, state = copies(named), copy.deepcopy(optimizer.state_dict())
    named["ln"].grad = named["ln"].grad.to_sparse()
    with pytest.raises(RuntimeError, match=r"^\w+ cannot use the sparse gradient .*'ln'; [^\n]*$"):
        optimizer.step()
    assert same_bits(before, named)
    assert_same_state(optimizer.state_dict(), state)


@every_optimizer
def test_a_gradient_that_is_not_finite_is_refused_before_anything_moves(
    name, parameters, groups, replay
):
    """At the first step, when there is no state, and in mid-run; the run then goes on unchanged."""
    clean, named = parameters(), parameters()
    replay(build_optimizer(name, groups(clean), **with_decay(name)), clean, last=6)
    optimizer = build_optimizer(name, groups(named), **with_decay(name))
    message = r"^\w+: the gradient of parameter '%s'%s is not finite; nothing was changed: [^\n]*$"
    for first, bad in ((0, float("nan")), (4, float("inf"))):
        replay(optimizer, named, last=first)
        before, state = copies(named), copy.deepcopy(optimizer.state_dict())
        for key, p in named.items():
            p.grad = torch.ones_like(p)
            if key in ("c_proj", "ln"):
                p.grad.view(-1)[-1] = bad
        with pytest.raises(RuntimeError, match=message % ("c_proj", r" \(and 1 more\)")):
            optimizer.step()
        assert same_bits(before, named)
        assert_same_state(optimizer.state_dict(), state)
    replay(optimizer, named, first=4, last=6)
    assert same_bits(clean, named)

    def closure():
        named["wte"].grad = torch.full_like(named["wte"], float("nan"))
        return 0.0

    before = copies(named)
    with pytest.raises(RuntimeError, match=message % ("wte", "")):
        optimizer.step(closure)  # checked after the closure has computed them
    assert same_bits(before, named)


def assert_same_state(one, two):
    assert one["state"].keys() == two["state"].keys()
    for key, values in one["state"].items():
        assert values.keys() == two["state"][key].keys()
        for entry, value in values.items():
            theirs = torch.as_tensor(two["state"][key][entry])
            assert torch.equal(torch.as_tensor(value), theirs), entry


class CountReads(TorchDispatchMode):
    """How often the host reads a number from a tensor; on a GPU it waits for each."""

    reads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.reads += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@every_own
def test_a_step_whose_gradients_are_already_checked_does_not_wait(name, parameters, groups, replay):
    """`check_gradients = False`, as in the training loop: no number comes back from the device.

    Nor do the numbers for the curves wait for it.
    """
    named = parameters()
    optimizer = build_optimizer(name, groups(named), **with_decay(name))
    replay(optimizer, named, last=2)
    optimizer.check_gradients = False
    with CountReads() as counter:
        optimizer.step()
        optimizer.diagnostics()
    assert counter.reads == 0
    optimizer.check_gradients = True
    with CountReads() as counter:
        optimizer.step()
    assert counter.reads == 1


@every_own
@pytest.mark.parametrize(
    ("groups_given", "message"),
    [
        ([{"params": [], "role": "vector"}], r"group 0 \(role 'vector'\) has no parameters"),
        ([torch.zeros(2, dtype=torch.complex64)], r"cannot train the torch.complex64 parameter"),
        ([{"params": [torch.zeros(2)], "names": ["a", "b"]}], r"has 1 parameters, 2 names"),
    ],
)
def test_groups_it_cannot_train_are_refused(name, groups_given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_optimizer(name, groups_given)
    assert "\n" not in str(caught.value)


@every_optimizer
@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"lrr": 1.0}, r"^unknown key 'optimizer.lrr'; did you mean 'lr'\? valid: .*lr"),
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


def test_a_public_method_overrides_one_of_the_base_or_is_called():
    """A hook under a name that the base does not know would never run."""
    source = "".join(path.read_text() for path in (PRESETS.parents[1] / "optim").rglob("*.py"))
    for cls in {c for row in OPTIMIZERS.values() for c in row.__mro__ if issubclass(c, UpdateRule)}:
        for name, value in vars(cls).items():
            if inspect.isfunction(value) and not name.startswith("_"):
                overrides = any(hasattr(base, name) for base in cls.__mro__[1:])
                assert overrides or f".{name}(" in source, f"{cls.__name__}.{name}"
