"""The table's torch optimizers against torch.optim's own, and the traps their docstrings name."""

import pytest
import torch

from configs.validation import ConfigError
from optim import build_optimizer, optimizer_state_bytes, resolve_optimizer

CASES = [
    ("sgd", torch.optim.SGD, {"lr": 0.1}),
    ("sgd", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("sgd", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("adam", torch.optim.Adam, {"lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.1}),
    ("adam", torch.optim.Adam, {"lr": 1e-2, "amsgrad": True}),
    ("adamw", torch.optim.AdamW, {"lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.1}),
    ("adamw", torch.optim.AdamW, {"lr": 1e-2, "amsgrad": True, "eps": 1e-6}),
    ("nadam", torch.optim.NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("nadam", torch.optim.NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": False}),
    ("radam", torch.optim.RAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("radam", torch.optim.RAdam, {"betas": (0.9, 0.95), "decoupled_weight_decay": False}),
    ("adagrad", torch.optim.Adagrad, {"lr_decay": 0.01, "weight_decay": 0.1}),
    ("adagrad", torch.optim.Adagrad, {"initial_accumulator_value": 0.1}),
    ("rmsprop", torch.optim.RMSprop, {"weight_decay": 0.1}),
    ("rmsprop", torch.optim.RMSprop, {"centered": True, "momentum": 0.9, "alpha": 0.95}),
    ("adafactor", torch.optim.Adafactor, {"weight_decay": 0.1}),
    ("adafactor", torch.optim.Adafactor, {"lr": 1.0, "d": 2.0, "beta2_decay": -0.5}),
]
FUSED = {"sgd", "adam", "adamw", "adagrad"}


@pytest.mark.parametrize(("name", "cls", "hyperparameters"), CASES)
def test_equals_torch(name, cls, hyperparameters, parameters, groups, replay):
    ours = parameters()
    replay(build_optimizer(name, groups(ours), **hyperparameters), ours)
    same_kernel = parameters()
    fused = {"fused": True} if name in FUSED else {}
    replay(cls(groups(same_kernel), **hyperparameters, **fused), same_kernel)
    loop = parameters()
    replay(cls(groups(loop), **hyperparameters, foreach=False), loop)
    for key, p in ours.items():
        assert torch.equal(p, same_kernel[key]), key
        # Centered RMSprop loses digits to cancellation, but in the same operations.
        assert torch.allclose(p, loop[key], rtol=1e-6, atol=1e-6), key


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad"])
def test_the_fused_kernel_is_used_where_there_is_one(name, parameters, groups):
    assert all(g["fused"] for g in build_optimizer(name, groups(parameters())).param_groups)
    whole = torch.zeros(2, dtype=torch.complex64, requires_grad=True)
    assert build_optimizer(name, [whole]).param_groups[0]["fused"] is None


@pytest.mark.parametrize("name", sorted(FUSED))
@pytest.mark.parametrize("expanded", [False, True], ids=["a part", "expanded"])
def test_tensors_that_are_not_dense_are_stepped_as_torch_does_and_nothing_else_is_touched(
    name, expanded
):
    """A parameter that is a part of a larger tensor; a gradient that repeats one row."""

    def final(make):
        whole = torch.zeros(6, 8)
        p = torch.nn.Parameter(torch.zeros(6, 4) if expanded else whole[:, :4])
        optimizer = make([p])
        for step in (1.0, -0.5):
            rows = torch.arange(4.0) + step
            p.grad = rows.expand(6, 4) if expanded else rows.repeat(6, 2)[:, :4]
            optimizer.step()
        assert not whole[:, 4:].any(), "overwritten"
        return p.detach()

    values = {"lr": 0.1, **({"momentum": 0.9} if name == "sgd" else {})}
    cls = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adagrad": "Adagrad"}[name]
    ours = final(lambda params: build_optimizer(name, params, **values))
    theirs = final(lambda params: getattr(torch.optim, cls)(params, **values, foreach=False))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", sorted(FUSED))
def test_a_dense_matrix_in_another_order_stays_fused_unless_its_gradient_lies_otherwise(name):
    p = torch.nn.Parameter(torch.zeros(4, 6).t())
    optimizer = build_optimizer(name, [p], lr=0.1)
    g = torch.arange(24.0).view(6, 4) - 7
    p.grad = g.t().contiguous().t()
    optimizer.step()
    assert optimizer.param_groups[0]["fused"]
    p.grad = g
    optimizer.step()
    assert not optimizer.param_groups[0]["fused"]
    plain = torch.nn.Parameter(torch.zeros(6, 4))
    same = build_optimizer(name, [plain], lr=0.1)
    for _ in range(2):
        plain.grad = g
        same.step()
    assert torch.allclose(p, plain, atol=1e-6)


def test_momentum_may_begin_late_for_some():
    late, early = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = build_optimizer("sgd", [early, late], lr=0.1, momentum=0.5)
    early.grad = torch.ones(3)
    optimizer.step()
    late.grad = torch.ones(3)
    optimizer.step()
    assert early.tolist() == pytest.approx([1 - 0.1 - 0.15] * 3)
    assert late.tolist() == pytest.approx([1 - 0.1] * 3)


@pytest.mark.parametrize(
    ("name", "hyperparameters", "tensors"),
    [
        ("sgd", {}, 0),
        ("sgd", {"momentum": 0.9}, 1),
        ("adam", {}, 2),
        ("adamw", {"amsgrad": True}, 3),
        ("nadam", {}, 2),
        ("radam", {}, 2),
        ("adagrad", {}, 1),
        ("rmsprop", {}, 1),
        ("rmsprop", {"momentum": 0.9, "centered": True}, 3),
    ],
)
def test_state_is_what_the_docstring_says(name, hyperparameters, tensors, replay):
    named = {"p": torch.nn.Parameter(torch.zeros(512, 64))}
    optimizer = build_optimizer(name, named.values(), **hyperparameters)
    replay(optimizer, named, last=1)
    scalars = optimizer_state_bytes(optimizer) - 4 * tensors * named["p"].numel()
    assert 0 <= scalars <= 8  # step, mu_product


def test_adafactor_state_is_a_row_and_a_column(replay):
    named = {"p": torch.nn.Parameter(torch.ones(512, 64))}
    optimizer = build_optimizer("adafactor", named.values())
    replay(optimizer, named, last=1)
    assert optimizer_state_bytes(optimizer) == 4 * (512 + 64) + 4


def one_step(name, start=1.0, gradient=1.0, steps=1, **hyperparameters):
    """Change of a vector of ten equal numbers over `steps` steps of one gradient."""
    p = torch.nn.Parameter(torch.full((10,), start))
    optimizer = build_optimizer(name, [p], **hyperparameters)
    for _ in range(steps):
        before = p.detach().clone()
        p.grad = torch.full_like(p, gradient)
        optimizer.step()
    return (p.detach() - before)[0].item()


def test_adafactor_steps_are_relative_to_the_weights():
    assert one_step("adafactor", start=0.02, lr=1e-2) == pytest.approx(-2e-4, rel=1e-4)
    assert one_step("adafactor", start=0.0, lr=1e-2) == pytest.approx(-1e-5, rel=1e-4)


def test_adafactor_caps_lr_by_the_step():
    p = torch.nn.Parameter(torch.ones(10))
    optimizer = build_optimizer("adafactor", [p], lr=0.5)
    for step in range(1, 17):
        with torch.no_grad():
            p.fill_(1.0)
        p.grad = torch.ones_like(p)
        optimizer.step()
        assert 1 - p[0].item() == pytest.approx(min(0.5, step**-0.5), rel=1e-5)


def test_adafactor_survives_rows_of_zero_gradient(replay):
    p = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = build_optimizer("adafactor", [p])
    p.grad = torch.tensor([[1.0, 2.0, 3.0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    for _ in range(3):
        optimizer.step()
    assert torch.isfinite(p).all()
    with pytest.raises(ConfigError, match=r"optimizer.eps = .*1e-30.*: should be greater than or"):
        resolve_optimizer("adafactor", {"eps": [1e-30, 1e-3]})


def test_radam_begins_with_steps_that_are_not_normalised():
    small = {"lr": 0.1, "gradient": 1e-3, "betas": (0.9, 0.95)}
    assert one_step("radam", **small) == pytest.approx(-0.1 * 1e-3, rel=1e-3)
    assert one_step("radam", steps=5, **small) == pytest.approx(-0.1 * 1e-3, rel=1e-3)
    assert abs(one_step("radam", steps=6, **small)) > 10 * 0.1 * 1e-3


def test_rmsprop_first_step_is_ten_times_adams():
    assert one_step("rmsprop", lr=0.01) == pytest.approx(10 * one_step("adam", lr=0.01), rel=1e-4)


def test_nadam_warms_its_momentum_up():
    mu1, mu2 = (0.9 * (1 - 0.96 ** (t * 4e-3) / 2) for t in (1, 2))
    expected = 1 + mu2 / (1 - mu1 * mu2) * 0.1  # times lr; without the warm-up it would be 1.9
    assert one_step("nadam", lr=0.01) == pytest.approx(-0.01 * expected, rel=1e-4)


@pytest.mark.parametrize("name", ["nadam", "radam"])
def test_decay_is_decoupled_by_default(name):
    change = one_step(name, gradient=0.0, lr=0.01, weight_decay=0.1)
    assert change == pytest.approx(-0.01 * 0.1, rel=1e-3)


def test_sgd_does_not_dampen_its_first_step():
    assert one_step("sgd", lr=0.1, momentum=0.9, dampening=0.9) == pytest.approx(-0.1)


def test_adam_couples_its_decay_and_adamw_does_not():
    for name, moves in (("adam", -0.01), ("adamw", -0.01 * 0.1)):
        change = one_step(name, gradient=0.0, lr=0.01, weight_decay=0.1)
        assert change == pytest.approx(moves, rel=1e-3), name


def test_nesterov_without_momentum_is_refused_in_one_line():
    p = torch.zeros(2, requires_grad=True)
    with pytest.raises(ConfigError, match=r"^optimizer 'sgd' cannot be built: .*Nesterov"):
        build_optimizer("sgd", [p], nesterov=True)


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("adamw", {"betas": [0.9, 1.0]}, r"^optimizer.betas = \[0.9, 1.0\]: should be less than 1"),
        ("adamw", {"betas": [0.9]}, r"^optimizer.betas = \[0.9\]: should be a list"),
        ("adamw", {"amsgrad": 1}, r"^optimizer.amsgrad = 1: should be true or false$"),
        ("adafactor", {"d": 0.5}, r"^optimizer.d = 0.5: should be greater than or equal to 1$"),
        ("adamw2", {}, r"^unknown optimizer.name = 'adamw2'; did you mean 'adamw'\? .*dotted path"),
    ],
)
def test_values_outside_their_domain(name, hyperparameters, message):
    with pytest.raises(ConfigError, match=message):
        resolve_optimizer(name, hyperparameters)


def seeds_nesterov(x, gradient, rates, momentum):
    """The textbook form, as in the study from which this project began; yields x and x_ahead.

    x_ahead = x + mu * v; v = mu * v - lr * gradient(x_ahead); x = x + v
    """
    v = torch.zeros_like(x)
    for lr in rates:
        v = momentum * v - lr * gradient(x + momentum * v)
        x = x + v
        yield x, x + momentum * v


def test_nesterov_is_the_gradient_at_x_ahead_after_a_change_of_variables():
    """On a loss that is no quadratic, in float64: p is x_ahead, and x = p + lr * momentum * b."""
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(7, dtype=torch.float64, generator=generator)
    start = torch.randn(7, dtype=torch.float64, generator=generator)

    def gradient(x):
        x = x.detach().requires_grad_()
        loss = (x - target).pow(4).sum() + (x.sin() * x.roll(1)).sum()
        return torch.autograd.grad(loss, x)[0]

    def ours(rates):
        p = torch.nn.Parameter(start.clone())
        optimizer = build_optimizer("sgd", [p], lr=0.01, momentum=0.9, nesterov=True)
        for lr in rates:
            optimizer.param_groups[0]["lr"] = lr
            p.grad = gradient(p)
            optimizer.step()
            yield p.detach() + lr * 0.9 * optimizer.state[p]["momentum_buffer"], p.detach().clone()

    rates = [0.01] * 60
    for (x, p), (expected_x, ahead) in zip(
        ours(rates), seeds_nesterov(start, gradient, rates, 0.9), strict=True
    ):
        torch.testing.assert_close(p, ahead, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(x, expected_x, rtol=1e-12, atol=1e-12)
    assert (x - start).norm() > 0.5, "it has gone somewhere"

    changing = [0.01, 0.005, 0.01, 0.001]  # the docstring's "Differs"
    *_, (_, p) = ours(changing)
    *_, (_, ahead) = seeds_nesterov(start, gradient, changing, 0.9)
    assert (p - ahead).abs().max() > 1e-4


def test_nesterov_on_a_parabola_in_closed_form():
    """x_ahead = q, loss q^2 / 2: q_t+1 = (1 + mu) (1 - lr) q_t - mu (1 - lr) q_t-1."""
    lr, mu = 0.1, 0.9
    roots = torch.tensor([[(1 + mu) * (1 - lr), -mu * (1 - lr)], [1, 0]], dtype=torch.float64)
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = build_optimizer("sgd", [p], lr=lr, momentum=mu, nesterov=True)
    second = 1 - lr * (1 + mu)  # the first step, from rest
    for step in range(1, 40):
        p.grad = p.detach().clone()
        optimizer.step()
        vector = torch.tensor([second, 1.0], dtype=torch.float64)
        expected = (torch.linalg.matrix_power(roots, step - 1) @ vector)[0].item()
        assert p.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)
