"""Prodigy: against the authors' package, against Adam, and its one estimate for all groups."""

import copy
import io

import prodigyopt
import pytest
import torch

from optim import build_optimizer, build_schedule


def doubled(parameters):
    return {name: torch.nn.Parameter(p.detach().double()) for name, p in parameters().items()}


def pull(named, step, targets):
    """Gradients towards a target, with noise: d grows, as it does in training."""
    for index, (name, p) in enumerate(named.items()):
        generator = torch.Generator().manual_seed(100 * step + index)
        noise = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        p.grad = targets[name] + 0.3 * noise


def apart(ours, reference):
    return max(
        ((p - reference[name]).abs().max() / reference[name].abs().max()).item()
        for name, p in ours.items()
    )


OPTIONS = [
    {},
    {"weight_decay": 0.1, "use_bias_correction": True},
    {"safeguard_warmup": True, "d_coef": 2.0, "betas": (0.8, 0.99)},
    {"growth_rate": 1.5, "beta3": 0.9, "d0": 1e-4, "eps": 1e-3},
]


@pytest.mark.parametrize("values", OPTIONS)
@pytest.mark.parametrize("warmup", [0, 5])
def test_equals_the_package(values, warmup, parameters, groups):
    ours, theirs = doubled(parameters), doubled(parameters)
    targets = {name: torch.randn_like(p) for name, p in ours.items()}
    optimizer = build_optimizer("prodigy", groups(ours), **values)
    reference = prodigyopt.Prodigy(groups(theirs), **values)
    for step in range(12):
        for group in (*optimizer.param_groups, *reference.param_groups):
            group["lr"] = min(1, (step + 1) / warmup) if warmup else 1.0
        pull(ours, step, targets)
        pull(theirs, step, targets)
        optimizer.step()
        reference.step()
        assert apart(ours, theirs) < 1e-10
        assert optimizer.diagnostics()["d"] == pytest.approx(reference.param_groups[0]["d"], 1e-10)
    assert optimizer.diagnostics()["d"] > 1.1 * optimizer.defaults["d0"]


def test_in_float32_it_stays_near_the_package(parameters, groups):
    """d is a ratio of sums of differences that begin as rounding errors, so 1 % is allowed."""
    ours, theirs = parameters(), parameters()
    targets = {name: torch.randn_like(p) for name, p in ours.items()}
    optimizer = build_optimizer("prodigy", groups(ours))
    reference = prodigyopt.Prodigy(groups(theirs))
    for step in range(12):
        pull(ours, step, targets)
        pull(theirs, step, targets)
        optimizer.step()
        reference.step()
    assert apart(ours, theirs) < 1e-5
    assert optimizer.diagnostics()["d"] == pytest.approx(reference.param_groups[0]["d"], 1e-2)


def test_with_d_frozen_it_is_adam_without_bias_correction(parameters, groups):
    """With a tiny d_coef the estimate stays at d0, which is then Adam's lr."""
    named = doubled(parameters)
    expected = {name: p.detach().clone() for name, p in named.items()}
    values = {"d0": 1e-3, "d_coef": 1e-30, "betas": (0.9, 0.99), "eps": 1e-6}
    optimizer = build_optimizer("prodigy", groups(named), **values)
    m = {name: torch.zeros_like(p) for name, p in named.items()}
    v = copy.deepcopy(m)
    for step in range(12):
        pull(named, step, expected)
        optimizer.step()
        for name, p in named.items():
            m[name] = 0.9 * m[name] + 0.1 * p.grad
            v[name] = 0.99 * v[name] + 0.01 * p.grad**2
            expected[name] = expected[name] - 1e-3 * m[name] / (v[name].sqrt() + 1e-6)
        assert apart(named, expected) < 1e-12
    assert optimizer.diagnostics() == {"d": 1e-3}


def test_unequal_rates_are_refused_before_anything_changes(parameters, groups, replay):
    named = parameters()
    optimizer = build_optimizer("prodigy", groups(named))
    replay(optimizer, named, last=1)
    optimizer.param_groups[1]["lr"] = 0.5
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"its groups have lr 1, 0\.5, 1; give all groups the sa"):
        replay(optimizer, named, 1, 2)
    after = optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert before["state"][0]["step"] == after["state"][0]["step"] == 1


def test_the_estimate_survives_a_checkpoint(parameters, groups, replay):
    first, second = parameters(), parameters()
    optimizer = build_optimizer("prodigy", groups(first))
    replay(optimizer, first, last=4)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    saved = optimizer.state_dict()  # also as a reference that later steps must not change
    estimate = optimizer.diagnostics()
    replay(optimizer, first, 4, 8)
    file.seek(0)
    for state in (torch.load(file, weights_only=True), saved):
        resumed = build_optimizer("prodigy", groups(second))
        assert resumed.diagnostics() == {"d": 1e-6}
        resumed.load_state_dict(state)
        assert resumed.diagnostics() == estimate


def test_no_number_leaves_the_device_in_a_step(parameters, groups, replay, monkeypatch):
    named = parameters()
    optimizer = build_optimizer("prodigy", groups(named), weight_decay=0.1, growth_rate=2.0)
    optimizer.check_gradients = False
    for name in ("item", "tolist", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, lambda self: pytest.fail("waits for the device"))
    replay(optimizer, named, last=2)


def test_a_warm_up_without_the_safeguard_is_named(parameters, groups):
    schedule = build_schedule("cosine", 100, warmup_steps=10)
    plain = build_optimizer("prodigy", groups(parameters()))
    assert "safeguard_warmup = true" in plain.check_schedule(schedule)
    assert plain.check_schedule(build_schedule("cosine", 100, warmup_steps=0)) is None
    safe = build_optimizer("prodigy", groups(parameters()), safeguard_warmup=True)
    assert safe.check_schedule(schedule) is None
