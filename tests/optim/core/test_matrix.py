"""The contract of all methods for matrices."""

import copy
import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from configs.validation import ConfigError
from optim import OPTIMIZERS, build_optimizer, resolve_optimizer
from optim.core.batch import Batch
from optim.core.matrix import MatrixRule, float32_products
from optim.core.products import matmul_precision
from tests.optim import oracles_matrix as oracles

METHODS = [name for name, cls in OPTIMIZERS.items() if issubclass(cls, MatrixRule)]
every_method = pytest.mark.parametrize("name", METHODS)
SHAPES = {"tall": (12, 8), "wide": (8, 20), "row": (1, 8), "column": (8, 1), "one": (1, 1)}


@pytest.mark.parametrize("name", [*METHODS, "scion", "psgd_kron"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("gradients", ["random", "zero", "rank one", "tiny", "huge", "zero first"])
def test_stays_finite(name, dtype, gradients):
    named = oracles.named_parameters(dtype, SHAPES)
    optimizer = build_optimizer(name, named.values())
    for step in range(24):
        for key, p in named.items():
            g = oracles.gradient(step, key, p)
            if gradients == "zero" or (gradients == "zero first" and step < 3):
                g = torch.zeros_like(g)
            elif gradients == "rank one":
                g = g[:, :1] @ g[:1, :]
            elif gradients in ("tiny", "huge"):
                g = g * (1e-12 if gradients == "tiny" else 1e12)
            p.grad = g
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in named.values())


@every_method
def test_roles_decide_what_is_a_matrix(name):
    shapes = {"wte": (12, 8), "c_fc": (12, 8), "head": (12, 8), "bias": (8,), "conv": (2, 3, 4)}
    named = oracles.named_parameters(torch.float32, shapes)
    same = oracles.named_parameters(torch.float32, shapes)
    roles = {"wte": "embedding", "c_fc": "hidden", "head": "head", "bias": "vector"}
    groups = [{"params": [named[key]], "role": role} for key, role in roles.items()]
    resolved = resolve_optimizer(name, {})
    half = {role: {"lr_ratio": 0.5} for role in ("embedding", "head", "vector")}
    groups.append({"params": [named["conv"]], "lr": 0.005})
    optimizer = build_optimizer(name, groups, lr=0.01, roles=half, weight_decay=0.1)
    oracles.replay(optimizer, named)
    adamw = torch.optim.AdamW(
        same.values(),
        lr=0.005,
        betas=resolved["betas"],
        eps=resolved["eps"],
        weight_decay=0.1,
    )
    oracles.replay(adamw, same)
    for key, p in named.items():
        assert torch.allclose(p, same[key], rtol=1e-5, atol=1e-7) == (key != "c_fc"), key


@every_method
def test_no_matrix_is_one_clear_line(name):
    with pytest.raises(ConfigError, match=r"no matrix to act on.*use adamw") as caught:
        build_optimizer(name, [torch.nn.Parameter(torch.ones(3))])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*METHODS, "scion", "psgd_kron"])
def test_compiled_equals_plain(name):
    """With one set of AdamW's hyperparameters: its compiled step is then made once for all rows."""
    shapes = {"c_fc": (256, 160), "wte": (300, 128), "bias": (40_000,)}
    roles = {"c_fc": "hidden", "wte": "embedding", "bias": "vector"}
    adamw = {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1} if name in METHODS else {}
    results = []
    for compiled in (False, True):
        named = oracles.named_parameters(torch.float32, shapes)
        groups = [{"params": [named[key]], "role": role} for key, role in roles.items()]
        optimizer = build_optimizer(name, groups, lr=0.01, **adamw)
        optimizer.compile = compiled
        optimizer.warm_up()
        assert not any(optimizer.state.values())
        results.append(oracles.replay(optimizer, named, steps=3))
    for key in shapes:
        # Newton-Schulz and decompositions are the same calls: only AdamW's part is compiled.
        assert torch.allclose(results[0][key], results[1][key], rtol=1e-5, atol=1e-6), key


@pytest.mark.parametrize("name", [*METHODS, "psgd_kron"])
def test_matrices_of_equal_shape_may_be_stacked(name, monkeypatch):
    """As on a GPU: the same numbers up to rounding, with a state that is the same in form."""
    shapes = {"a": (8, 8), "b": (8, 8), "c_attn": (12, 4), "c": (4, 4), "bias": (8,)}
    if name in ("galore", "apollo", "dion"):  # bases of others are arbitrary where rank is missing
        shapes |= {f"{side}.{i}": SHAPES[side] for i in range(2) for side in ("tall", "wide")}
    results, stacks = [], Batch.stacks
    for together in (False, True):
        monkeypatch.setattr(Batch, "stacks", lambda batch, t=together: stacks(batch, t))
        named = oracles.named_parameters(shapes=shapes)
        group = {"params": list(named.values()), "names": list(named)}
        optimizer = build_optimizer(name, [group], lr=0.01)
        oracles.replay(optimizer, named, steps=4)
        state = [x for p in named.values() for x in optimizer.state[p].values()]
        results.append([*(p.detach() for p in named.values()), *state])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


def test_a_stack_is_no_larger_than_may_be(monkeypatch):
    monkeypatch.setattr("optim.core.batch.STACKED", 3 * 12)  # parameter and gradient of three
    batch = Batch({}, 1)
    for i in range(5):
        batch.append(torch.zeros(2, 3), torch.full((2, 3), float(i)), {})
    sizes = []
    for p, g, _ in batch.stacks(together=True):
        p += g
        sizes.append(len(p))
    assert sizes == [3, 2]
    assert all(p.eq(i).all() for i, p in enumerate(batch.params))


FLOAT32_PRODUCTS = ["soap", "shampoo", "galore", "apollo", "dion", "kl_soap", "soap_muon"]


@pytest.mark.parametrize("name", [*FLOAT32_PRODUCTS, "psgd_kron"])
def test_products_do_not_depend_on_how_torch_is_set(name, monkeypatch):
    optimizer = build_optimizer(name, [torch.nn.Parameter(torch.ones(6, 4))])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(6, 4)
    seen = []
    monkeypatch.setattr(
        type(optimizer),
        "_step" if name == "psgd_kron" else "matrix_step",
        lambda *_: seen.append(torch.get_float32_matmul_precision()),
    )
    before = torch.get_float32_matmul_precision()
    try:
        for setting in ("medium", "highest"):
            torch.set_float32_matmul_precision(setting)
            optimizer.step()
            assert torch.get_float32_matmul_precision() == setting
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == [matmul_precision("cpu", False)] * 2


PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}


class Precisions(TorchDispatchMode):
    """Notes how torch was set at each product of float32 matrices."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in PRODUCTS and args[1].dtype == torch.float32:
            self.seen.append((name, torch.get_float32_matmul_precision()))
        return func(*args, **(kwargs or {}))


# torch's Adafactor multiplies a column by a row as torch is set: only these factors are rounded
@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"adafactor"}))
def test_no_row_leaves_the_precision_of_its_products_to_the_model(name):
    """The trainer sets torch by the model's dtype; the same rule must give the same update."""
    before, seen = torch.get_float32_matmul_precision(), {}
    for setting in ("medium", "highest"):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(6, 4))
        optimizer = build_optimizer(
            name, [{"params": [p], "role": "hidden", "names": ["h.w"]}], total_steps=9
        )
        try:
            torch.set_float32_matmul_precision(setting)
            with Precisions() as precisions:
                for _ in range(2):
                    p.grad = torch.randn(6, 4)
                    optimizer.step()
            assert torch.get_float32_matmul_precision() == setting, "left as it was"
        finally:
            torch.set_float32_matmul_precision(before)
        seen[setting] = precisions.seen
    assert seen["medium"] == seen["highest"]


@pytest.mark.parametrize(("dtype", "expected"), [("tf32", "high"), ("float32", "highest")])
def test_tf32_is_for_gpus_and_ends_with_the_step(dtype, expected):
    before, seen = torch.get_float32_matmul_precision(), []

    def failing_step():
        with float32_products(dtype, "cuda"):
            seen.append(torch.get_float32_matmul_precision())
            raise RuntimeError("failed")

    with pytest.raises(RuntimeError, match="failed"):
        failing_step()
    assert seen == [expected]
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("name", [*METHODS, "scion", "psgd_kron"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_resume_is_exact_in_every_precision(name, dtype):
    """Part of the state is in float32, whatever the precision of the parameter."""
    shapes = {"tall": (12, 8), "wide": (8, 12), "bias": (8,)}
    through = oracles.named_parameters(dtype, shapes)
    optimizer = build_optimizer(name, through.values())
    oracles.replay(optimizer, through, steps=11)
    resumed = oracles.named_parameters(dtype, shapes)
    for key, p in resumed.items():
        p.data.copy_(through[key])
    again = build_optimizer(name, resumed.values())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    oracles.replay(optimizer, through, steps=11)
    oracles.replay(again, resumed, steps=11)
    assert all(torch.equal(through[key], resumed[key]) for key in shapes)


@pytest.mark.parametrize("name", ["soap", "shampoo"])
def test_a_decomposition_that_was_not_guarded_says_why_it_fails(name):
    p = torch.nn.Parameter(torch.ones(6, 4))
    few = {"start_preconditioning_step": 1} if name == "shampoo" else {}
    optimizer = build_optimizer(name, [p], **few)
    optimizer.check_gradients = False
    p.grad = torch.full_like(p, float("nan"))
    with pytest.raises(RuntimeError, match=r"^a second moment has no eigenvectors.*not finite$"):
        optimizer.step()
    assert torch.equal(p, torch.ones_like(p))


@pytest.mark.parametrize("name", ["soap", "shampoo", "galore"])
def test_a_gradient_whose_square_overflows_is_refused_too(name):
    """It is finite, but its second moment is not; the parameter has no name here."""
    fine, p = torch.nn.Parameter(torch.ones(3, 3)), torch.nn.Parameter(torch.ones(6, 4))
    optimizer = build_optimizer(name, [fine, p])
    fine.grad, p.grad = torch.ones_like(fine), torch.full_like(p, 1e25)
    with pytest.raises(RuntimeError, match=r"the gradient of parameter 1 of group 0 is not finite"):
        optimizer.step()
    assert torch.equal(p, torch.ones_like(p))
    assert torch.equal(fine, torch.ones_like(fine))
    assert not optimizer.state


def halves(name, dtype=torch.float64, split=True):
    """A fused c_attn, and the same rows as three parameters; an optimizer for each."""
    fused = oracles.named_parameters(dtype, {"c_attn": (18, 6), "c_proj": (6, 6)})
    apart = {"c_proj": fused["c_proj"].detach().clone()}
    apart |= dict(zip("qkv", fused["c_attn"].detach().clone().chunk(3), strict=True))
    apart = {key: torch.nn.Parameter(p.clone()) for key, p in apart.items()}
    names = ["h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight"]
    group = {"params": list(fused.values()), "names": names, "role": "hidden"}
    one = build_optimizer(name, [group], lr=0.01, split_qkv=split)
    return fused, one, apart, build_optimizer(name, apart.values(), lr=0.01)


def replay_both(fused, one, apart, three, steps):
    for step in range(steps):
        for key, p in fused.items():
            p.grad = oracles.gradient(step, key, p)
        parts = dict(zip("qkv", fused["c_attn"].grad.chunk(3), strict=True))
        for key, p in apart.items():
            p.grad = (fused["c_proj"].grad if key == "c_proj" else parts[key]).clone()
        one.step()
        three.step()


@pytest.mark.parametrize("name", [*METHODS, "scion"])
def test_a_fused_matrix_is_updated_as_three(name):
    fused, one, apart, three = halves(name)
    replay_both(fused, one, apart, three, steps=12)
    together = torch.cat([apart[key] for key in "qkv"])
    assert torch.allclose(fused["c_attn"], together, rtol=0, atol=1e-12)
    assert torch.allclose(fused["c_proj"], apart["c_proj"], rtol=0, atol=1e-12)
    whole, one, apart, three = halves(name, split=False)
    replay_both(whole, one, apart, three, steps=12)
    assert not torch.allclose(whole["c_attn"], together, atol=1e-4)


@pytest.mark.parametrize("name", [*METHODS, "scion", "psgd_kron"])
def test_state_of_another_split_is_refused_or_the_same(name):
    """State with one row for each row of the matrix is the same either way, all other is not."""
    fused, one, *rest = halves(name, torch.float32, split=False)
    replay_both(fused, one, *rest, steps=3)
    _, other, *_ = halves(name, torch.float32)
    saved = copy.deepcopy(one.state_dict())
    saved["param_groups"] = other.state_dict()["param_groups"]
    tensors = [t for t in saved["state"][0].values() if isinstance(t, torch.Tensor)]
    if all(t.shape[:1] == (18,) for t in tensors):
        other.load_state_dict(saved)
        kept = other.state[other.param_groups[0]["params"][0]]["momentum_buffer"]
        assert torch.equal(kept.flatten(0, 1), saved["state"][0]["momentum_buffer"])
    else:
        with pytest.raises(ValueError, match=r"of 'h.0.attn.c_attn.weight' is .*split_qkv") as e:
            other.load_state_dict(saved)
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", [*METHODS, "scion"])
def test_matrices_without_a_role_are_taken_for_hidden_ones_with_a_warning(name):
    matrix, other = (torch.nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    with pytest.warns(
        UserWarning, match=r"^\w+ takes 2 matrices for hidden ones, .*'role'; [^\n]*$"
    ):
        build_optimizer(name, [matrix, other])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_optimizer(name, [{"params": [matrix, other], "role": "hidden"}])
