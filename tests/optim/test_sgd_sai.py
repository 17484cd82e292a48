"""SGD-SaI against an oracle and its package; its scale, and SGD-sqrt-n, its control."""

import math

import pytest
import torch

from optim import build_optimizer
from tests.optim import oracles, recorded

SAI = {"momentum": 0.9, "eps": 1e-8, "weight_decay": 0.1}
SQRT_N = {"momentum": 0.9, "weight_decay": 0.1}


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("sgd_sai", SAI),
        ("sgd_sai", {"momentum": 0.0, "eps": 1e-8, "weight_decay": 0.0}),
        ("sgd_sqrtn", SQRT_N),
    ],
)
def test_equals_its_oracle(name, hyperparameters):
    recorded.assert_equals_oracle(name, 1e-2, **hyperparameters)


def test_equals_its_package():
    package = pytest.importorskip("sgd_sai")

    def make(named, lr):
        return package.SGD_sai(list(named.values()), lr=lr, **SAI)

    # for the tensor of one element, the package's k is norm(g) / eps
    recorded.assert_equals_package("sgd_sai", make, leave_out=("x",), **SAI)


@pytest.mark.parametrize(("name", "hyperparameters"), [("sgd_sai", SAI), ("sgd_sqrtn", SQRT_N)])
def test_normalised_scales_are_divided_by_the_largest(name, hyperparameters):
    sai = [oracles.g_snr(g[0], 1e-8) for g in recorded.gradients().values()]
    largest = max(sai) if name == "sgd_sai" else 96**0.5
    expected = recorded.oracle(name, 1.0, **hyperparameters, largest=largest)
    ours = recorded.ours(name, 1.0, **hyperparameters, normalise=True)
    assert recorded.distance(ours, expected) < 1e-12


def test_g_snr_does_not_depend_on_the_size_of_the_gradient():
    found = []
    for size in (1.0, 1000.0):
        p = torch.nn.Parameter(torch.zeros(30, 20, dtype=torch.float64))
        optimizer = build_optimizer("sgd_sai", [p], eps=0.0)
        noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
        p.grad = size * (0.1 + noise.double())
        optimizer.step()
        found.append(optimizer.state[p]["scale"].item())
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    snr = oracles.g_snr(p.grad, 0.0)
    n, mean, std = p.numel(), p.grad.mean().item(), p.grad.std().item()
    assert found[0] == pytest.approx(snr)
    assert snr == pytest.approx(math.sqrt(n - 1 + n * (mean / std) ** 2)), "the identity"


@pytest.mark.parametrize(
    ("value", "shape"), [(0.0, (8, 4)), (3.0, (8, 4)), (1e-4, (32,)), (5.0, (1,)), (0.0, (1,))]
)
def test_g_snr_of_a_gradient_without_spread_is_the_root_of_the_size(value, shape):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        p = torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
        optimizer = build_optimizer("sgd_sai", [p])
        p.grad = torch.full_like(p, value)
        optimizer.step()
        assert optimizer.state[p]["scale"].item() == pytest.approx(math.sqrt(p.numel()))


def test_is_its_control_but_for_the_scale():
    grads = {
        key: [g - g.mean() for g in gs] for key, gs in recorded.gradients().items() if key != "x"
    }
    scale = {key: math.sqrt(gs[0].numel() / (gs[0].numel() - 1)) for key, gs in grads.items()}
    for key, gs in grads.items():  # without a mean, k is sqrt(n - 1)
        found = {}
        for name in ("sgd_sai", "sgd_sqrtn"):
            p = torch.nn.Parameter(torch.zeros_like(gs[0]))
            optimizer = build_optimizer(name, [p], lr=1e-2)
            p.grad = gs[0].clone()
            optimizer.step()
            found[name] = p.detach() * (scale[key] if name == "sgd_sai" else 1)
        assert torch.allclose(found["sgd_sai"], found["sgd_sqrtn"], rtol=1e-6)


def test_keeps_its_scale_when_it_goes_on_from_a_checkpoint():
    named = recorded.start()
    values = list(named.values())
    optimizer = build_optimizer("sgd_sai", values)
    recorded.take(optimizer, named, recorded.gradients(), recorded.rates(1e-2)[:3])
    before = [optimizer.state[p]["scale"].item() for p in values]
    resumed = build_optimizer("sgd_sai", values)
    resumed.load_state_dict(optimizer.state_dict())
    recorded.take(resumed, named, recorded.gradients(), recorded.rates(1e-2)[:3])
    assert [resumed.state[p]["scale"].item() for p in values] == before


@pytest.mark.parametrize("name", ["sgd_sai", "sgd_sqrtn"])
def test_state_that_others_keep_in_the_optimizer_is_left_alone(name, parameters, replay):
    """As torch.distributed and some trainers do."""
    one, two = parameters(), parameters()
    replay(build_optimizer(name, one.values(), normalise=True), one, last=2)
    optimizer = build_optimizer(name, two.values(), normalise=True)
    optimizer.state["somebody"] = {"note": 1}
    replay(optimizer, two, last=2)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert optimizer.state["somebody"] == {"note": 1}
