"""Sophia-G: against the formulas, one coordinate after the other, and its two gradients."""

import warnings

import pytest
import torch

from optim import build_optimizer, resolve_optimizer

TOKENS = 64


def gradients(named, seed, scale=1.0):
    for index, p in enumerate(named.values()):
        generator = torch.Generator().manual_seed(1000 * seed + index)
        p.grad = scale * torch.randn(p.shape, generator=generator, dtype=p.dtype)


def oracle(p, grads, drawn, lr, betas, rho, eps, weight_decay):
    """The algorithm for one coordinate: Python numbers, one step after the other."""
    m = h = 0.0
    for g, estimate in zip(grads, drawn, strict=True):
        if estimate is not None:
            h = betas[1] * h + (1 - betas[1]) * TOKENS * estimate * estimate
        m = betas[0] * m + (1 - betas[0]) * g
        p = p * (1 - lr * weight_decay)
        p = p - lr * max(-1.0, min(1.0, m / (rho * h + eps)))
    return p


def test_equals_the_formulas(parameters, groups):
    """With curvature of all sizes, so that some coordinates are clipped and some are not."""
    named = {name: torch.nn.Parameter(p.detach().double()) for name, p in parameters().items()}
    start = {name: p.detach().clone() for name, p in named.items()}
    values = {"lr": 0.01, "betas": (0.9, 0.95), "rho": 0.05, "eps": 1e-12}
    optimizer = build_optimizer("sophia_g", groups(named), k=3, weight_decay=0.1, **values)
    grads = {name: [] for name in named}
    drawn = {name: [] for name in named}
    for step in range(12):
        due = optimizer.curvature_due(step)
        assert due == (step in (0, 3, 6, 9))
        if due:
            gradients(named, 100 + step, scale=0.5)
            optimizer.update_curvature(TOKENS)
        for name, p in named.items():
            drawn[name].append(p.grad.flatten().tolist() if due else None)
        gradients(named, step)
        for name, p in named.items():
            grads[name].append(p.grad.flatten().tolist())
        optimizer.step()
    assert 0.1 < optimizer.diagnostics()["unclipped"] < 0.9
    for name, p in named.items():
        decay = 0.0 if name in ("bias", "ln") else 0.1
        for i, value in enumerate(p.flatten().tolist()):
            mine = [d if d is None else d[i] for d in drawn[name]]
            g = [x[i] for x in grads[name]]
            expected = oracle(
                start[name].flatten()[i].item(), g, mine, **values, weight_decay=decay
            )
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-14), name


def test_without_curvature_it_is_the_sign_of_momentum(parameters, groups, replay):
    """The update is then that of Lion with equal betas: every coordinate moves by lr."""
    one, two = parameters(), parameters()
    replay(build_optimizer("sophia_g", groups(one), lr=1e-3, betas=(0.9, 0.99)), one)
    replay(build_optimizer("lion", groups(two), lr=1e-3, betas=(0.9, 0.9)), two)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-6, atol=1e-7)


def test_curvature_before_the_first_step_and_in_a_checkpoint(parameters, groups, replay):
    through, first, second = parameters(), parameters(), parameters()

    def part(named, optimizer, steps):
        for step in steps:
            if optimizer.curvature_due(step):
                gradients(named, 100 + step)
                optimizer.update_curvature(TOKENS)
            replay(optimizer, named, step, step + 1)

    def build(named):
        return build_optimizer("sophia_g", groups(named), k=2)

    part(through, build(through), range(8))
    begun = build(first)
    part(first, begun, range(5))
    resumed = build(second)
    resumed.load_state_dict(begun.state_dict())
    for name, p in second.items():
        p.data.copy_(first[name])
    part(second, resumed, range(5, 8))
    assert all(torch.equal(through[name], second[name]) for name in through)
    assert all(state["step"] == 8 for state in resumed.state.values())


def test_other_optimizers_ask_for_no_curvature(parameters, groups):
    assert not any(
        build_optimizer(name, groups(parameters())).curvature_due(step)
        for name in ("adamw", "lion")
        for step in range(3)
    )
    assert resolve_optimizer("sophia_g", {})["k"] == 10


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_estimate_that_is_not_finite_is_left_out_or_refused(parameters, groups, replay, bad):
    """One tensor has it, but no tensor uses it; the steps are as if there were no estimate."""
    with_bad, without = parameters(), parameters()
    results = []
    for named, spoiled in ((with_bad, True), (without, False)):
        optimizer = build_optimizer("sophia_g", groups(named), k=2)
        optimizer.check_gradients = False  # as the training loop does
        gradients(named, 100)
        optimizer.update_curvature(TOKENS)
        replay(optimizer, named, last=2)
        if spoiled:
            gradients(named, 101)
            named["c_proj"].grad[0, 0] = bad
            optimizer.update_curvature(TOKENS)
        replay(optimizer, named, first=2, last=4)
        results.append(optimizer)
    assert all(torch.equal(with_bad[name], without[name]) for name in without)
    assert [o.diagnostics()["estimates_skipped"] for o in results] == [1, 0]

    optimizer = results[0]
    before = {name: optimizer.state[p]["hessian"].clone() for name, p in with_bad.items()}
    optimizer.check_gradients = True
    with_bad["ln"].grad[0] = bad
    with pytest.raises(RuntimeError, match=r"^SophiaG: the gradient of parameter 'ln' is not fin"):
        optimizer.update_curvature(TOKENS)
    assert all(torch.equal(before[n], optimizer.state[p]["hessian"]) for n, p in with_bad.items())


def test_without_an_estimate_the_first_step_warns(parameters, groups):
    named = parameters()
    optimizer = build_optimizer("sophia_g", groups(named))
    gradients(named, 0)
    with pytest.warns(UserWarning, match="SophiaG has no estimate of the curvature, so its steps"):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
        with_one = build_optimizer("sophia_g", groups(named))
        with_one.update_curvature(TOKENS)
        with_one.step()
