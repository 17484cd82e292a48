"""What must be true of the project's own optimizers by their mathematics, without a reference."""

import math

import pytest
import torch

from configs.validation import ConfigError
from optim import build_optimizer, resolve_optimizer
from tests.optim import oracles
from tests.optim.test_update_rules import gradients, ours, rates, start, take

LR = 1e-2


def final(name, grads, lr=LR, **hyperparameters):
    named = start()
    group = {"params": list(named.values()), "names": list(named)}
    return take(build_optimizer(name, [group], lr=lr, **hyperparameters), named, grads, rates(lr))


def close(one, two, tolerance=1e-12):
    return all(torch.allclose(one[key], two[key], rtol=tolerance, atol=tolerance) for key in one)


def moved(after):
    return {key: (p - start()[key]).detach() for key, p in after.items()}


NO_EPS = {"eps": 1e-300}


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("nadamw", NO_EPS),
        ("adopt", NO_EPS),
        ("ademamix", NO_EPS),
        ("cautious_adamw", NO_EPS),
        ("adam_mini", NO_EPS),
        ("lamb", NO_EPS),
        ("lion", {}),
        ("cautious_lion", {}),
        ("signum", {}),
    ],
)
def test_the_size_of_all_gradients_is_irrelevant(name, hyperparameters):
    larger = {key: [1000 * g for g in gs] for key, gs in gradients().items()}
    assert close(
        final(name, gradients(), **hyperparameters), final(name, larger, **hyperparameters)
    )


@pytest.mark.parametrize("name", ["sgd_sai", "sgd_sqrtn", "mars"])
def test_the_size_of_all_gradients_matters(name):
    larger = {key: [10 * g for g in gs] for key, gs in gradients().items()}
    assert not close(final(name, gradients()), final(name, larger), 1e-3)


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


def test_sgd_sai_is_its_control_but_for_the_scale():
    grads = {key: [g - g.mean() for g in gs] for key, gs in gradients().items() if key != "x"}
    scale = {key: math.sqrt(gs[0].numel() / (gs[0].numel() - 1)) for key, gs in grads.items()}
    for key, gs in grads.items():  # without a mean, k is sqrt(n - 1)
        found = {}
        for name in ("sgd_sai", "sgd_sqrtn"):
            p = torch.nn.Parameter(torch.zeros_like(gs[0]))
            optimizer = build_optimizer(name, [p], lr=LR)
            p.grad = gs[0].clone()
            optimizer.step()
            found[name] = p.detach() * (scale[key] if name == "sgd_sai" else 1)
        assert torch.allclose(found["sgd_sai"], found["sgd_sqrtn"], rtol=1e-6)


def test_sgd_sai_keeps_its_scale_when_it_goes_on_from_a_checkpoint():
    named = start()
    values = list(named.values())
    optimizer = build_optimizer("sgd_sai", values)
    take(optimizer, named, gradients(), rates(LR)[:3])
    before = [optimizer.state[p]["scale"].item() for p in values]
    resumed = build_optimizer("sgd_sai", values)
    resumed.load_state_dict(optimizer.state_dict())
    take(resumed, named, gradients(), rates(LR)[:3])
    assert [resumed.state[p]["scale"].item() for p in values] == before


def test_lamb_moves_each_matrix_by_lr_times_its_norm():
    grads = {key: gs[:1] for key, gs in gradients().items()}
    named = start()
    optimizer = build_optimizer("lamb", list(named.values()), lr=LR, weight_decay=0.0)
    for key, change in moved(take(optimizer, named, grads, [LR])).items():
        if change.ndim == 2:
            assert change.norm() == pytest.approx(LR * start()[key].norm().item(), rel=1e-9)


def test_lars_moves_each_matrix_by_its_trust():
    grads = {key: gs[:1] for key, gs in gradients().items()}
    named = start()
    optimizer = build_optimizer("lars", list(named.values()), lr=2.0, trust=1e-3, weight_decay=0.1)
    for key, change in moved(take(optimizer, named, grads, [2.0])).items():
        p, g = start()[key].detach(), grads[key][0]
        if change.ndim == 2:
            size = 2e-3 * p.norm() * (g + 0.1 * p).norm() / (g.norm() + 0.1 * p.norm())
            assert change.norm() == pytest.approx(size.item(), rel=1e-12)
        else:
            assert torch.allclose(change, -2.0 * g)


@pytest.mark.parametrize("name", ["lion", "signum"])
def test_every_coordinate_moves_by_lr_or_not_at_all(name):
    grads = {key: [g.round() for g in gs[:1]] for key, gs in gradients().items()}
    named = start()
    optimizer = build_optimizer(name, list(named.values()), lr=LR)
    for key, change in moved(take(optimizer, named, grads, [LR])).items():
        expected = -LR * torch.sign(grads[key][0])
        assert torch.allclose(change, expected, rtol=0, atol=1e-15)


def adamw(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1):
    named, lrs = start(), rates(LR)
    values = {"betas": betas, "eps": eps, "weight_decay": weight_decay}
    return take(torch.optim.AdamW(named.values(), lr=LR, **values), named, gradients(), lrs)


def test_ademamix_without_its_slow_average_is_adamw():
    assert close(ours("ademamix", LR, alpha=0.0, weight_decay=0.1), adamw())


def test_mars_without_gamma_on_small_gradients_is_adamw():
    small = {key: [1e-2 * g for g in gs] for key, gs in gradients().items()}
    assert all(g.norm() <= 1 for gs in small.values() for g in gs)
    values = {"betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
    named = start()
    expected = take(torch.optim.AdamW(named.values(), lr=LR, **values), named, small, rates(LR))
    result = final("mars", small, **values, gamma=0.0, vector_betas=(0.9, 0.99))
    assert close(result, expected)


def test_mars_keeps_a_copy_of_the_last_gradient():
    """Zeroed in place, a gradient kept by reference would take the correction away."""
    results = []
    for zero in (False, True):
        named = start()
        optimizer = build_optimizer("mars", list(named.values()), lr=LR)
        for step in range(3):
            for key, p in named.items():
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                p.grad.copy_(gradients()[key][step])
            optimizer.step()
            if zero:
                optimizer.zero_grad(set_to_none=False)
        results.append(named)
    assert close(*results, 0.0)


def test_adam_mini_of_single_elements_is_adamw():
    shapes = {"a.weight": (12, 1), "b.bias": (7,), "c.ln_1.weight": (1,)}
    lrs, grads = rates(LR), gradients(shapes)
    named = start(shapes)
    values = {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    expected = take(torch.optim.AdamW(named.values(), lr=LR, **values), named, grads, lrs)
    assert close(ours("adam_mini", LR, shapes, **values), expected)


def test_adam_mini_refuses_heads_that_do_not_fit():
    p = torch.zeros(18, 6, requires_grad=True)
    group = {"params": [p], "names": ["attn.c_attn.weight"]}
    with pytest.raises(ConfigError, match=r"'attn.c_attn.weight' has 18 rows.* n_head = 4 heads"):
        build_optimizer("adam_mini", [group], n_head=4)


@pytest.mark.parametrize(("name", "base"), [("cautious_adamw", "adamw"), ("cautious_lion", "lion")])
def test_cautious_is_its_base_where_all_agree(name, base):
    """Gradients that never change sign agree with their averages; Lion's n / (n + 1) remains."""
    grads = {key: [g.abs() * gs[0].sign() for g in gs] for key, gs in gradients().items()}
    values = {"weight_decay": 0.0}
    cautious, plain = moved(final(name, grads, **values)), moved(final(base, grads, **values))
    if name == "cautious_lion":
        for change in plain.values():
            change *= change.numel() / (change.numel() + 1)
    assert close(cautious, plain)


def test_adopts_first_step_moves_nothing():
    grads = {key: gs[:1] for key, gs in gradients().items()}
    named = start()
    optimizer = build_optimizer("adopt", list(named.values()), lr=LR, weight_decay=0.1)
    take(optimizer, named, grads, [LR])
    assert all(torch.equal(p, start()[key]) for key, p in named.items())
    for key, p in named.items():
        assert torch.equal(optimizer.state[p]["exp_avg_sq"], grads[key][0] ** 2)


def test_ademamix_warms_up_to_its_full_betas():
    optimizer = build_optimizer("ademamix", [torch.zeros(1)], warmup_steps=100)
    group = resolve_optimizer("ademamix", {"warmup_steps": 100})
    values = [optimizer.coefficients(group, step) for step in (1, 50, 100, 200)]
    assert [value["alpha"] for value in values] == pytest.approx([0.05, 2.5, 5.0, 5.0])
    half_life = [math.log(0.5) / math.log(value["slow"]) for value in values]
    ends = [math.log(0.5) / math.log(beta) for beta in (0.9, 0.9999)]
    assert half_life[2:] == pytest.approx([ends[1]] * 2)
    assert half_life[1] == pytest.approx(sum(ends) / 2), "the half-life grows linearly"


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("signum", {"momentum": 0.0, "nesterov": True}, "needs a momentum above 0"),
        ("ademamix", {"betas": (0.9, 0.999, 0.5)}, "slow one should not be below the first"),
    ],
)
def test_combinations_without_meaning_are_refused(name, hyperparameters, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_optimizer(name, [torch.zeros(2)], **hyperparameters)
    assert "\n" not in str(caught.value)
