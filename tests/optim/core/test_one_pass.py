"""The base of the project's own optimizers: batches, and the two ways to run an update."""

import copy
import functools
import importlib
import pkgutil
import subprocess
import sys
import warnings

import pytest
import torch

import optim
from optim import OPTIMIZERS, build_optimizer
from optim.core import one_pass
from optim.core.base import UpdateRule
from optim.core.batch import Batch
from optim.core.compiled import CompiledUpdate, frozen
from tests.jobs import ROOT
from tests.optim.core.test_matrix import METHODS
from tests.optim.test_contract import OWN, copies, same_bits

# Of methods for matrices only AdamW's part is compiled: tests/optim/core/test_matrix.py.
COMPILED = [name for name in OWN if name not in (*METHODS, "scion", "psgd_kron")]
# Both matrices are passed as rows of 64, so that one kernel serves them: 1,125 and 1,875 rows.
BIG = {"wte.weight": (360, 200), "h.0.attn.c_attn.weight": (600, 200), "ln.weight": (200,)}


def big(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return {
        key: torch.nn.Parameter(0.1 * torch.randn(shape, generator=generator, dtype=dtype))
        for key, shape in BIG.items()
    }


def built(name, named, **hyperparameters):
    if name == "adam_mini":
        hyperparameters["n_head"] = 4
    group = {"params": list(named.values()), "names": list(named), "weight_decay": 0.1}
    return build_optimizer(name, [group], total_steps=100, **hyperparameters)


def steps(optimizer, named, count=4):
    generator = torch.Generator().manual_seed(4)
    for step in range(count):
        for p in named.values():
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        if optimizer.curvature_due(step):
            optimizer.update_curvature(100)
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
        optimizer.step()
    return named


def compares_compiled_with_plain(name):
    results = []
    for compiled in (True, False):
        named = big()
        optimizer = built(name, named)
        optimizer.compile = compiled
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # the notice that nothing is compiled
            optimizer.warm_up()
            graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            results.append(steps(optimizer, named))
        after = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert after == graphs, "compiled after the warm-up, or again for another lr"
    for key, p in results[0].items():
        assert torch.allclose(p, results[1][key], rtol=1e-12, atol=1e-14), key


@pytest.mark.parametrize("name", COMPILED)
def test_traced_and_plain_are_one_function(name, monkeypatch):
    """As compiled, but what torch.compile has traced runs as it is: no kernel is made of it."""
    compile = torch.compile

    def traces(function, backend, options, **others):
        own = backend if callable(backend) else "eager"
        return compile(function, backend=own, options=options if own is backend else {}, **others)

    monkeypatch.setattr(torch, "compile", traces)
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, *_, **__: graph)
    uncached = functools.cache(one_pass.compiled_update.__wrapped__)
    monkeypatch.setattr(one_pass, "compiled_update", uncached)
    compares_compiled_with_plain(name)
    assert uncached.cache_info().currsize


# One update of each form: one pass over rows, two passes, sums over all tensors, whole tensors.
FORMS = ("lion", "lamb", "prodigy", "adam_mini")


@pytest.mark.parametrize(
    "name", [x if x in FORMS else pytest.param(x, marks=pytest.mark.slow) for x in COMPILED]
)
def test_compiled_and_plain_are_one_function(name):
    compares_compiled_with_plain(name)


@pytest.mark.parametrize("name", ["lion", "lamb"])
def test_a_tensor_that_makes_no_rows_is_compiled_as_one(name):
    results = []
    for compiled in (True, False):
        named = {
            "wte.weight": torch.nn.Parameter(torch.linspace(-1, 1, 39_999).double().view(3, -1))
        }
        optimizer = built(name, named)
        optimizer.compile = compiled
        results.append(steps(optimizer, named)["wte.weight"])
    assert torch.allclose(*results, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("taken", [0, 2])
@pytest.mark.parametrize("name", ["lion", "sgd_sai", "sophia_g", "prodigy", "schedule_free_adamw"])
def test_warm_up_changes_nothing(name, taken):
    named = big()
    optimizer = built(name, named)
    optimizer.compile = True
    steps(optimizer, named, taken)
    before, state = copies(named), copy.deepcopy(optimizer.state_dict())
    numbers = torch.get_rng_state()
    optimizer.warm_up()
    assert torch.equal(torch.get_rng_state(), numbers)
    assert same_bits(before, named)
    after = optimizer.state_dict()
    assert after["param_groups"] == state["param_groups"]
    for key, values in state["state"].items():
        for entry, value in values.items():
            found = after["state"][key][entry]
            assert torch.equal(torch.as_tensor(found), torch.as_tensor(value)), entry


def test_small_models_are_not_compiled(parameters):
    optimizer = build_optimizer("lion", parameters().values())
    assert not optimizer._should_compile()
    with torch.device("meta"):
        large = [torch.zeros(4000, 4000)]
    assert build_optimizer("lion", large)._should_compile()
    optimizer.warm_up()  # nothing to do, at once


NO_COMPILER = """
import os, warnings
os.environ |= {"CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": os.environ["FOLDER"]}
import torch
from optim import build_optimizer
named = [torch.nn.Parameter(torch.ones(300, 300)) for _ in range(2)]
results = []
for compiled in (True, False):
    named = [torch.nn.Parameter(torch.ones(300, 300)) for _ in range(2)]
    optimizer = build_optimizer("lion", named)
    optimizer.compile = compiled
    with warnings.catch_warnings(record=True) as caught:
        optimizer.warm_up()
        for _ in range(3):
            for p in named:
                p.grad = torch.ones_like(p)
            optimizer.step()
    notices = [str(w.message) for w in caught if w.category is RuntimeWarning]
    results.append(named)
    print(len(notices), *notices)
assert all(torch.equal(p, q) for p, q in zip(*results))
"""


def test_without_a_compiler_it_says_so_once_and_goes_on(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "FOLDER": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-c", NO_COMPILER]
    done = subprocess.run(run, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with_compile, without = done.stdout.splitlines()
    assert with_compile.startswith("1 optimizer steps are not compiled and so take several times")
    assert without == "0"


def test_parameters_of_different_age_are_in_different_batches(parameters, replay):
    named = parameters()
    optimizer = build_optimizer("nadamw", named.values())
    replay(optimizer, {"wte": named["wte"], "ln": named["ln"]}, last=2)
    replay(optimizer, named, 2, 3)
    batches = {batch.step: len(batch.params) for batch in optimizer._batches()}
    assert batches == {4: 2, 2: 3}
    saved = optimizer.state_dict()["state"]
    assert sorted(values["step"] for values in saved.values()) == [2, 2, 2, 4, 4]


def test_state_keeps_its_dtype_through_a_checkpoint():
    """torch casts state to the parameter's dtype: SGD-SaI's float32 scale to bfloat16, here."""
    p = torch.nn.Parameter(torch.ones(40, 30, dtype=torch.bfloat16))
    optimizer = build_optimizer("sgd_sai", [p])
    p.grad = torch.randn(p.shape).bfloat16()
    optimizer.step()
    resumed = build_optimizer("sgd_sai", [p])
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.state[p]["scale"].dtype == torch.float32
    assert torch.equal(resumed.state[p]["scale"], optimizer.state[p]["scale"])


def test_closure_is_called_with_gradients_enabled(parameters):
    named = parameters()
    optimizer = build_optimizer("lion", named.values())

    def closure():
        optimizer.zero_grad()
        loss = sum((p**2).sum() for p in named.values())
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > optimizer.step(closure).item()


def test_tensors_of_a_shape_go_together_and_give_the_bits_of_one_by_one(monkeypatch):
    """Nine of one shape go in two kernels of four and a single one, another shape on its own."""
    results = []
    for number in (4, 1):
        monkeypatch.setattr(one_pass, "TOGETHER", number)
        generator = torch.Generator().manual_seed(5)
        shapes = {f"h.{i}.weight": (300, 128) for i in range(9)} | {"wte.weight": (301, 128)}
        named = {
            key: torch.nn.Parameter(torch.randn(shape, generator=generator))
            for key, shape in shapes.items()
        }
        optimizer = built("lion", named)
        optimizer.compile = True
        calls = []
        call = CompiledUpdate.__call__
        monkeypatch.setattr(
            CompiledUpdate,
            "__call__",
            lambda *x, f=call, c=calls: c.append(len(x[1])) or f(*x),
        )
        optimizer.warm_up()
        calls.clear()
        results.append(steps(optimizer, named, 3))
        monkeypatch.undo()
        assert calls == 3 * ([4, 4, 1, 1] if number == 4 else [1] * 10)
    assert same_bits(*results)


@pytest.mark.parametrize(
    "name", ["lamb", "cautious_adamw", pytest.param("cautious_lion", marks=pytest.mark.slow)]
)
def test_two_passes_compute_the_update_once(name):
    """With another loop over the tensor, its update would go through a temporary of that size."""
    p = torch.nn.Parameter(torch.randn(300, 1024))
    optimizer = build_optimizer(name, [p])
    optimizer.compile = True
    p.grad = torch.randn_like(p)
    optimizer.step()  # compiles, and makes the buffer
    with torch.profiler.profile(profile_memory=True) as profile:
        optimizer.step()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < p.nbytes / 8


def test_views_of_one_buffer_first_and_other_sizes_after_them():
    """Like DDP's buckets; without a warm-up, whose tensors are not views."""
    results = []
    for compiled in (True, False):
        named = {}
        for rows in (75, 301):
            buffer, gradients = torch.ones(2, 3 * rows, 512)
            params = [torch.nn.Parameter(x) for x in buffer.chunk(3)]
            optimizer = build_optimizer("signum", params, lr=0.01)
            optimizer.compile = compiled
            for p, grad in zip(params, gradients.chunk(3), strict=True):
                p.grad = grad
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                optimizer.step()
                optimizer.step()
            named |= {f"{rows}.{i}": p for i, p in enumerate(params)}
        results.append(named)
    assert torch.allclose(results[1]["301.2"], torch.full((301, 512), 0.98))
    for key, p in results[0].items():
        assert torch.allclose(p, results[1][key], rtol=1e-6), key


def test_state_of_another_dtype_is_not_read_as_the_parameters():
    p = torch.nn.Parameter(torch.ones(301, 128))
    optimizer = build_optimizer("lion", [p])
    optimizer.compile = True
    p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.state[p]["exp_avg"] = optimizer.state[p]["exp_avg"].bfloat16()
    warnings.simplefilter("ignore")  # that it cannot be compiled
    with pytest.raises(RuntimeError, match="dtype"):
        optimizer.step()


def test_after_its_first_call_a_function_is_called_without_torch_compile(monkeypatch):
    used = []
    call = CompiledUpdate.__call__
    monkeypatch.setattr(CompiledUpdate, "__call__", lambda *x: used.append(x[0]) or call(*x))
    named = big(torch.float32)
    optimizer = built("lion", named)
    optimizer.compile = True
    steps(optimizer, named, 1)
    before = copies(named)
    for function in used:
        monkeypatch.setattr(function, "call", None)
    steps(optimizer, named, 1)
    assert len(used) == 4
    assert not same_bits(before, named)


@torch.no_grad()
def test_lists_are_compiled_as_they_are_where_a_device_wants_it():
    """The path of a GPU, on the CPU: one function for the whole batch."""
    named = big()
    optimizer = built("lamb", named)
    steps(optimizer, named, 1)
    other = copy.deepcopy(named)
    (batch, *_rest) = [b for b in optimizer._batches() if b.h["kind"] == "adapted"]
    plain = Batch(batch.h, batch.step)
    for key, (_, grad, state) in zip(other, batch.items(), strict=False):
        plain.append(other[key], grad, {name: value.clone() for name, value in state.items()})
    coefficients = optimizer.coefficients(batch.h, batch.step)
    constants = frozen(batch.constants())
    assert one_pass.run_lists(optimizer.update, batch, coefficients, constants)
    optimizer.update(plain.params, plain.grads, plain.state, plain.constants(), coefficients)
    for one, two in zip(batch.params, plain.params, strict=True):
        assert torch.allclose(one, two, rtol=1e-12)


def test_every_own_optimizer_is_in_the_table():
    for module in pkgutil.iter_modules(optim.__path__, "optim."):
        importlib.import_module(module.name)
    defined, found = set(), [UpdateRule]
    while found:
        cls = found.pop()
        found += cls.__subclasses__()
        if cls.__module__.startswith("optim.") and not cls.__module__.startswith("optim.core."):
            defined |= set() if cls.__name__.startswith("_") else {cls}
    assert defined == {cls for cls in OPTIMIZERS.values() if issubclass(cls, UpdateRule)}
