"""Every wrapper over every row: refused in one line, or the contract of an optimizer holds."""

import copy
import inspect
import io
import math
import pickle

import pytest
import torch

from configs.validation import ConfigError
from optim import OPTIMIZERS, build_optimizer, optimizer_state_bytes, resolve_optimizer
from optim.core.around import Around
from optim.core.base import Optimizer, UpdateRule
from optim.wrappers import WRAPPERS, resolve_wrap, wrapped

STEPS = 8
TABLES = {  # each wrapper so that it acts within 8 steps
    "momentum_schedule": {"momentum_schedule": {"warmup_steps": 3, "cooldown_steps": 0.25}},
    "decay": {"decay": {"scale": "lr_squared"}},
    "cautious decay": {"decay": {"cautious": True, "scale": "schedule"}},
    "hyperball": {"hyperball": {}},
    "outer_nesterov": {"outer_nesterov": {"every": 2}},
    "ema": {"ema": {"decay": 0.5}},
    "lawa": {"lawa": {"last": 2, "every": 1}},
    "tail": {"tail": {"start": 1, "judged": True}},
    "ema_nesterov": {"ema_nesterov": {"start": 1, "stop": 7, "gamma": 0.5}},
    "all": {
        "momentum_schedule": {"warmup_steps": 3},
        "decay": {"cautious": True},
        "hyperball": {},
        "ema": {},
        "lawa": {"last": 3, "every": 2},
        "tail": {"start": 2},
        "ema_nesterov": {"start": 1, "beta": 0.3},
    },
}
ROWS = [*OPTIMIZERS, "torch.optim.Adamax"]
FREE = {"schedule_free_adamw", "schedule_free_sgd"}
MIRRORS = FREE | {"muown"}  # whose state mirrors the weights
NO_DECAY = {name for name in ROWS if "weight_decay" not in resolve_optimizer(name, {})}
NO_MOMENTUM = {
    name
    for name in ROWS
    if not resolve_optimizer(name, {}).get("momentum", 0)
    and not resolve_optimizer(name, {}).get("betas")
}
REFUSED = {  # combinations that make no sense; every other one must work
    "momentum_schedule": FREE | NO_MOMENTUM,
    "decay": MIRRORS | NO_DECAY | {"prodigy"},
    "cautious decay": MIRRORS | NO_DECAY | {"prodigy"},
    "hyperball": MIRRORS | {"prodigy", "muonclip"},
    "outer_nesterov": MIRRORS,
    "ema": FREE,
    "lawa": FREE,
    "tail": FREE,
    "ema_nesterov": MIRRORS,
    "all": MIRRORS | NO_MOMENTUM | NO_DECAY | {"prodigy", "muonclip"},
}
COMBINATIONS = [(row, table) for table in TABLES for row in ROWS]


def decays(name, table):
    """Decay where the row has one, but not of a matrix on a sphere."""
    if name in NO_DECAY or table == "hyperball":
        return {"weight_decay": 0.0} if name not in NO_DECAY else {}
    return {"weight_decay": 0.1}


def made(name, table, named, groups, **hyperparameters):
    own = decays(name, table) | hyperparameters
    return build_optimizer(name, groups(named), wrap=TABLES[table], total_steps=STEPS, **own)


def values(named):
    return {key: p.detach().clone() for key, p in named.items()}


def same_bits(one, two):
    return all(torch.equal(one[key], two[key]) for key in one)


def put(named, step):
    """Gradients of `step`, the same for every call."""
    generator = torch.Generator().manual_seed(step)
    for p in named.values():
        p.grad = torch.randn(p.shape, generator=generator)


def run(optimizer, named, first=0, last=STEPS, evaluate=False):
    for step in range(first, last):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * (1 - step / 10)
        put(named, step)
        optimizer.step()
        if evaluate:
            list(optimizer.evaluations())
    return named


@pytest.mark.parametrize(("name", "table"), COMBINATIONS)
def test_contract_or_one_line(name, table, parameters, groups):
    if name in REFUSED[table]:
        with pytest.raises(ConfigError, match=r"^optimizer\.wrap\.\w+: \w+ .*") as caught:
            made(name, table, parameters(), groups)
        assert "\n" not in str(caught.value)
        return

    # lr 0 moves nothing
    named = parameters()
    before = values(named)
    still = made(name, table, named, groups, lr=0.0)
    run(still, named, last=3)
    assert same_bits(before, named)

    # evaluations in between change nothing, and state is counted
    through = parameters()
    optimizer = made(name, table, through, groups)
    run(optimizer, through, last=5)
    first = parameters()
    interrupted = made(name, table, first, groups)
    run(interrupted, first, last=5, evaluate=True)
    assert same_bits(through, first)
    assert all(torch.isfinite(p).all() for p in first.values())
    saved = interrupted.state_dict()
    tensors = [x for state in saved["state"].values() for x in flat(state)]
    assert optimizer_state_bytes(interrupted) == sum(x.nbytes for x in tensors)

    # resume is exact, through a file that holds only plain values
    file = io.BytesIO()
    torch.save({"weights": values(first), "optimizer": saved}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    second = parameters()
    resumed = made(name, table, second, groups)
    for key, p in second.items():
        p.data.copy_(loaded["weights"][key])
    resumed.load_state_dict(loaded["optimizer"])
    run(optimizer, through, first=5)
    run(resumed, second, first=5, evaluate=True)
    assert same_bits(through, second)
    for _ in zip(optimizer.evaluations(), resumed.evaluations(), strict=True):
        assert same_bits(through, second)

    # a parameter without a gradient is skipped, and gradients are left alone
    skipped = second.pop("c_proj")
    skipped.grad, before = None, skipped.detach().clone()
    put(second, 50)
    grads = {key: p.grad.clone() for key, p in second.items()}
    resumed.step()
    assert torch.equal(skipped, before)
    assert same_bits(grads, {key: p.grad for key, p in second.items()})


def flat(value):
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [x for part in parts for x in flat(part)] if isinstance(value, dict | list) else []


# ------------------------------------------------------------------------- the wrapper's own form


@pytest.mark.parametrize("name", WRAPPERS)
def test_docstring_and_signature_are_those_of_an_optimizer(name):
    text = inspect.getdoc(WRAPPERS[name])
    places = [text.index(f"\n{s}:") for s in ("Source", "Differs", "Tuning", "State")]
    assert places == sorted(places)
    first, *rest = inspect.signature(WRAPPERS[name]).parameters.values()
    assert first.name == "total_steps"
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in rest)
    assert resolve_wrap(resolve_wrap({name: {}})) == resolve_wrap({name: {}})


def test_every_hook_reaches_the_row():
    """A hook that a later version adds to the base must be handed on as well."""
    hooks = {k for k, v in vars(Optimizer).items() if inspect.isfunction(v) and k[0] != "_"}
    made_of_others = {"evaluations", "whole_state_dict", "train", "eval"}
    assert hooks - made_of_others <= set(vars(Around))


def test_hooks_of_the_row_are_called(parameters, groups):
    named = parameters()
    optimizer = wrapped(build_optimizer("sophia_g", groups(named)), {"ema": {}})
    assert [optimizer.curvature_due(step) for step in (0, 1)] == [True, False]
    run(optimizer, named, last=1)
    for p in named.values():
        p.grad = torch.ones_like(p)
    optimizer.update_curvature(10)
    assert optimizer.state[named["wte"]]["hessian"].sum() > 0
    assert "estimates_skipped" in optimizer.diagnostics()
    optimizer.check_gradients = False
    assert not optimizer.inner.check_gradients
    assert optimizer.param_groups is optimizer.inner.param_groups


def test_copies_and_pickles_go_on_alike(parameters, groups):
    named = parameters()
    optimizer = made("adamw", "all", named, groups)
    run(optimizer, named, last=3)
    for make in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        other, theirs = make((optimizer, named))
        mine = copy.deepcopy((optimizer, named))
        run(other, theirs, first=3)
        run(*mine, first=3)
        assert same_bits(theirs, mine[1])


def test_a_gradient_that_is_not_finite_changes_nothing(parameters, groups):
    for table in ("decay", "all"):
        named = parameters()
        optimizer = made("adamw", table, named, groups)
        run(optimizer, named, last=2)
        before, state = values(named), copy.deepcopy(optimizer.state_dict())
        put(named, 2)
        named["ln"].grad[0] = math.nan
        with pytest.raises(RuntimeError, match="gradient of parameter 'ln' is not finite"):
            optimizer.step()
        assert same_bits(before, named)
        after = optimizer.state_dict()
        assert after["param_groups"] == state["param_groups"]
        assert all(
            torch.equal(torch.as_tensor(x), torch.as_tensor(state["state"][i][k]))
            for i, entries in after["state"].items()
            for k, x in entries.items()
        )


def test_a_step_in_eval_mode_is_refused(parameters, groups):
    named = parameters()
    optimizer = made("adamw", "ema_nesterov", named, groups)
    run(optimizer, named, last=3)
    optimizer.eval_mode()
    put(named, 3)
    with pytest.raises(RuntimeError, match=r"^AdamW.step\(\) in eval mode, [^\n]*train_mode"):
        optimizer.step()


def test_a_state_saved_in_eval_mode_resumes_to_the_same_bits(parameters, groups):
    through, named, second = parameters(), parameters(), parameters()
    run(made("adamw", "all", through, groups), through)
    optimizer = made("adamw", "all", named, groups)
    run(optimizer, named, last=4)
    optimizer.average_mode("ema")
    resumed = made("adamw", "all", second, groups)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for key, p in second.items():
        p.data.copy_(named[key])
    resumed.train_mode()
    run(resumed, second, first=4)
    assert same_bits(through, second)


def test_bfloat16_weights_have_averages_in_float32():
    p = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    tables = {**TABLES["all"], "outer_nesterov": {"every": 2}}
    del tables["ema_nesterov"]
    optimizer = wrapped(build_optimizer("lion", [p], weight_decay=0.1, lr=0.1), tables, STEPS)
    for _ in range(3):
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert optimizer.state[p]["ema.average"].dtype == torch.float32
    other = wrapped(build_optimizer("lion", [p], weight_decay=0.1, lr=0.1), tables, STEPS)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[p]["ema.average"].dtype == torch.float32
    assert torch.isfinite(p).all()


# ------------------------------------------------------------------------------------ mathematics


def trained(table, loss, start, lr=0.1, steps=12, name="sgd", rates=None, **row):
    """Weights after each step on `loss`, and the optimizer; `start` is a float64 tensor."""
    p = torch.nn.Parameter(start.clone())
    group = {"params": [p], "names": ["h.0.mlp.c_fc.weight"], "role": "hidden"}
    optimizer = wrapped(build_optimizer(name, [group], lr=lr, **row), table, steps)
    history = []
    for step in range(steps):
        for g in optimizer.param_groups:
            g["lr"] = lr * (rates[step] if rates else 1.0)
        optimizer.zero_grad()
        loss(p).backward()
        optimizer.step()
        optimizer.eval_mode()
        history.append(p.detach().clone())
        optimizer.train_mode()
    return history, optimizer, p


START = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
RATES = [1 - 0.05 * step for step in range(12)]


def bowl(p):
    weights = torch.linspace(0.5, 2.0, p.numel(), dtype=p.dtype).view_as(p)
    return (weights * (p - 0.3) ** 2).sum()


def gradient(w):
    return 2 * torch.linspace(0.5, 2.0, w.numel(), dtype=w.dtype).view_as(w) * (w - 0.3)


def flat_loss(p):
    return 0.0 * p.sum()


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "nadamw"])
def test_plain_decay_is_the_decoupled_decay_of_a_row(name):
    own = trained({}, bowl, START, 0.01, name=name, rates=RATES, weight_decay=0.5)[0]
    ours = trained({"decay": {}}, bowl, START, 0.01, name=name, rates=RATES, weight_decay=0.5)[0]
    assert torch.allclose(own[-1], ours[-1], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("scale", "amount"),
    [
        ("lr", lambda rate: 0.1 * rate * 0.5),
        ("lr_squared", lambda rate: 0.1 * rate * rate * 0.5),
        ("schedule", lambda rate: rate * 0.5),
    ],
)
def test_scales_of_decay_in_closed_form(scale, amount):
    table = {"decay": {"scale": scale}}
    last = trained(table, flat_loss, START, rates=RATES, weight_decay=0.5)[0][-1]
    expected = START * math.prod(1 - amount(rate) for rate in RATES)
    assert torch.allclose(last, expected, rtol=1e-13)


def test_cautious_decay_against_a_loop_over_elements():
    """The mask compares the update, not the gradient, with the weight before the step."""
    table = {"decay": {"cautious": True}}
    row = {"name": "adamw", "betas": (0.9, 0.99), "eps": 1e-8}
    after = trained(table, bowl, START, 0.3, rates=RATES, weight_decay=0.5, **row)[0][-1]
    weights, m, v = START.flatten().tolist(), [0.0] * 24, [0.0] * 24
    differs = 0
    for step, rate in enumerate(RATES, start=1):
        grads = gradient(torch.tensor(weights, dtype=torch.float64)).tolist()
        for i, (w, g) in enumerate(zip(weights, grads, strict=True)):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.99 * v[i] + 0.01 * g * g
            root = math.sqrt(v[i] / (1 - 0.99**step)) + 1e-8
            u = m[i] / (1 - 0.9**step) / root
            differs += (u * w >= 0) != (g * w >= 0)
            weights[i] = w - 0.3 * rate * u - (0.3 * rate * 0.5 * w if u * w >= 0 else 0.0)
    assert differs, "the case tells the two masks apart"
    assert torch.allclose(after.flatten(), torch.tensor(weights, dtype=torch.float64), rtol=1e-12)


def test_weight_decay_of_a_group_is_kept(parameters, groups):
    named = parameters()
    before = values(named)
    optimizer = made("sgd", "cautious decay", named, groups, lr=0.1)
    for p in named.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = {key for key, p in named.items() if not torch.equal(p, before[key])}
    assert moved == {"wte", "c_attn", "c_proj"}, "vectors have no decay in their group"
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.1, 0.0]


def test_hyperball_keeps_norms_and_makes_relative_steps():
    history, *_ = trained({"hyperball": {}}, bowl, START, 0.05, rates=RATES)
    w = START
    for rate, after in zip(RATES, history, strict=True):
        u = gradient(w)
        step = w - 0.05 * rate * w.norm() * u / u.norm()
        assert torch.allclose(after, step * w.norm() / step.norm(), rtol=1e-12)
        assert after.norm() == pytest.approx(START.norm().item(), rel=1e-14)
        w = after


def test_hyperball_does_not_depend_on_the_rate_and_scale_of_the_row():
    one = trained({"hyperball": {}}, bowl, START, 0.05)[0][-1]
    other = trained({"hyperball": {}}, lambda p: 1e3 * bowl(p), START, 0.05)[0][-1]
    assert torch.allclose(one, other, rtol=1e-12)


def test_hyperball_has_three_spheres_for_a_fused_projection():
    results = {}
    for split in (True, False):
        p = torch.nn.Parameter(torch.randn(9, 3, generator=torch.Generator().manual_seed(1)))
        norms = [part.norm().item() for part in p.detach().chunk(3)]
        group = {"params": [p], "names": ["h.0.attn.c_attn.weight"], "role": "hidden"}
        table = {"hyperball": {"split_qkv": split}}
        optimizer = wrapped(build_optimizer("sgd", [group], lr=0.5), table)
        put({"p": p}, 0)
        optimizer.step()
        results[split] = [part.norm().item() for part in p.detach().chunk(3)] == pytest.approx(
            norms, rel=1e-6
        )
    assert results == {True: True, False: False}


@pytest.mark.parametrize("start", [torch.zeros(3, 2), torch.ones(3, 2)])
def test_hyperball_without_gradient_or_without_norm_stays_finite_and_still(start):
    p = torch.nn.Parameter(start.clone())
    optimizer = wrapped(build_optimizer("sgd", [p], lr=0.5), {"hyperball": {}})
    p.grad = torch.ones_like(p) if not start.any() else torch.zeros_like(p)
    optimizer.step()
    assert torch.allclose(p, start)


def test_hyperball_leaves_all_but_hidden_matrices_to_the_row(parameters, groups):
    plain, ball = parameters(), parameters()
    run(build_optimizer("adamw", groups(plain), weight_decay=0.0), plain)
    run(made("adamw", "hyperball", ball, groups), ball)
    equal = {key for key in plain if torch.equal(plain[key], ball[key])}
    assert equal == {"wte", "bias", "ln"}


def test_ema_nesterov_is_the_published_order():
    """Look ahead, gradient, update, average of displacements: as the script has it."""
    table = {"ema_nesterov": {"beta": 0.6, "gamma": 0.8, "start": 2, "stop": 9}}
    history, *_ = trained(table, bowl, START, 0.05, rates=RATES)
    w, b, last = START.clone(), torch.zeros_like(START), None
    for it, rate in enumerate(RATES):
        ahead = w.clone()
        if it + 1 > 2 and it < 9:
            ahead += 0.6 * last * b
        new = ahead - 0.05 * rate * gradient(ahead)
        b = 0.8 * b + 0.2 * (new - w)
        w, last = new, rate
        assert torch.allclose(history[it], w, rtol=1e-12)


def test_outer_nesterov_is_sgd_with_nesterov_momentum_on_what_was_moved():
    table = {"outer_nesterov": {"lr": 0.7, "momentum": 0.5, "every": 3}}
    history, *_ = trained(table, bowl, START, 0.05, rates=RATES)
    slow = torch.nn.Parameter(START.clone())
    outer = torch.optim.SGD([slow], lr=0.7, momentum=0.5, nesterov=True)
    for phase in range(4):
        w = slow.detach().clone()
        for rate in RATES[3 * phase : 3 * phase + 3]:
            w -= 0.05 * rate * gradient(w)
        slow.grad = slow.detach() - w
        outer.step()
        assert torch.allclose(history[3 * phase + 2], slow, rtol=1e-12)


def test_outer_nesterov_of_rate_1_without_momentum_is_the_identity():
    table = {"outer_nesterov": {"lr": 1.0, "momentum": 0.0, "every": 2}}
    one, other = (trained(t, bowl, START, 0.05)[0][-1] for t in (table, {}))
    assert torch.allclose(one, other, rtol=1e-13)


def averages(table, steps=12):
    history, optimizer, p = trained(table, bowl, START, 0.05, steps=steps)
    found = {}
    for name in optimizer.averages():
        optimizer.average_mode(name)
        found[name] = p.detach().clone()
    optimizer.train_mode()
    return history, found


def test_ema_is_the_mean_with_exponential_weights():
    history, found = averages({"ema": {"decay": 0.7}})
    weights = torch.tensor([0.7 ** (11 - i) for i in range(12)], dtype=torch.float64)
    expected = (weights.view(-1, 1, 1) * torch.stack(history)).sum(0) / weights.sum()
    assert torch.allclose(found["ema"], expected, rtol=1e-12)
    assert torch.equal(history[-1], trained({}, bowl, START, 0.05)[0][-1]), "training is unchanged"


def test_averages_of_equal_weights_are_these_weights():
    table = {"ema": {"decay": 0.9}, "lawa": {"last": 3, "every": 2}, "tail": {"start": 3}}
    _, optimizer, p = trained(table, flat_loss, START)
    for name in optimizer.averages():
        optimizer.average_mode(name)
        assert torch.allclose(p, START, rtol=1e-15), name


def test_lawa_is_the_mean_of_the_last_copies():
    history, found = averages({"lawa": {"last": 3, "every": 2}}, steps=11)
    expected = (history[5] + history[7] + history[9]) / 3
    assert torch.allclose(found["lawa"], expected, rtol=1e-14)


def test_tail_is_the_mean_from_its_start():
    history, found = averages({"tail": {"start": 0.5}})
    assert torch.allclose(found["tail"], torch.stack(history[6:]).mean(0), rtol=1e-13)


def test_a_tail_of_a_run_with_the_state_of_another_has_its_own_weights_alone():
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = wrapped(build_optimizer("sgd", [p], lr=1.0), {"tail": {"start": 1}}, 3)
    for updates in range(6):
        if updates == 3:
            optimizer.param_groups[0]["updates"] = 0  # as record.parents does
        p.grad = torch.ones_like(p)
        optimizer.step()
    optimizer.average_mode("tail")
    assert p.tolist() == [-5.5, -5.5]  # the mean of -5 and -6


def test_averages_are_of_the_weights_without_look_ahead():
    table = {"tail": {"start": 8}, "ema_nesterov": {"start": 0}}
    history, found = averages(table)
    assert torch.allclose(found["tail"], torch.stack(history[8:]).mean(0), rtol=1e-13)


def test_an_average_has_no_evaluation_before_it_begins_and_the_judged_one_comes_first():
    p = torch.nn.Parameter(torch.zeros(2, 2))
    table = {"ema": {}, "tail": {"start": 2, "judged": True}, "lawa": {"every": 2}}
    optimizer = wrapped(build_optimizer("sgd", [p], lr=1.0), table, 8)
    seen = []
    for _ in range(4):
        seen.append({suffix: p[0, 0].item() for suffix in optimizer.evaluations()})
        p.grad = torch.ones_like(p)
        optimizer.step()
    seen.append({suffix: p[0, 0].item() for suffix in optimizer.evaluations()})
    assert [set(x) for x in seen] == [
        {""},
        {"", "_ema"},
        {"", "_ema", "_lawa"},
        {"", "_raw", "_ema", "_lawa"},
        {"", "_raw", "_ema", "_lawa"},
    ]
    assert seen[4][""] == -3.5  # the mean of -3 and -4
    assert seen[4]["_raw"] == p[0, 0].item() == -4


def test_momentum_rises_and_falls_as_worked_by_hand():
    p = torch.nn.Parameter(torch.zeros(3, 3))
    values = {"start": 0.85, "end": 0.75, "warmup_steps": 2, "cooldown_steps": 4}
    optimizer = wrapped(
        build_optimizer("muon", [p], momentum=0.95), {"momentum_schedule": values}, 8
    )
    seen = []
    for _ in range(8):
        p.grad = torch.ones_like(p)
        optimizer.step()
        seen.append(optimizer.diagnostics()["momentum"])
        assert optimizer.param_groups[0]["momentum"] == 0.95
    assert seen == pytest.approx([0.85, 0.9, 0.95, 0.95, 0.95, 0.9, 0.85, 0.8])


def test_a_group_without_momentum_gets_none_from_a_schedule():
    with_it, without = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    groups = [{"params": [without], "momentum": 0.0}, {"params": [with_it]}]
    row = build_optimizer("sgd", groups, lr=0.1, momentum=0.9)
    optimizer = wrapped(row, {"momentum_schedule": {"warmup_steps": 2, "cooldown_steps": 0}}, 8)
    for p in (with_it, without):
        p.grad = torch.ones_like(p)
    for _ in range(4):
        optimizer.step()
        assert optimizer.diagnostics()["momentum"] == 0, "of the first group"
    assert torch.allclose(without, torch.full((3,), 1 - 4 * 0.1))
    assert with_it[0] < without[0]


def test_the_state_of_another_run_brings_no_copies_into_its_mean():
    """As with init_optimizer, where the count of updates begins anew."""
    table = {"lawa": {"last": 3, "every": 2, "judged": True}}
    p = torch.nn.Parameter(torch.zeros(4, 4))
    parent = wrapped(build_optimizer("sgd", [p], lr=1.0), table, 20)
    for _ in range(8):
        p.grad = torch.ones_like(p)
        parent.step()
    child = wrapped(build_optimizer("sgd", [p], lr=1.0), table, 20)
    saved = parent.state_dict()
    groups = [saved["param_groups"][0] | child.state_dict()["param_groups"][0]]
    child.load_state_dict({**saved, "param_groups": groups})
    seen = []
    for _ in range(5):
        child.eval_mode()
        seen.append(p[0, 0].item())
        child.train_mode()
        p.grad = torch.ones_like(p)
        child.step()
    assert seen == [-8, -9, -10, -10, -11]  # its own weights, then copies of updates 2 and 4


@pytest.mark.parametrize(("name", "key"), [("muon", "momentum"), ("nadamw", "betas")])
def test_scheduled_momentum_is_what_the_row_uses(name, key):
    table = {"momentum_schedule": {"start": 0.5, "warmup_steps": 8, "cooldown_steps": 0}}
    ours = trained(table, bowl, START, 0.01, name=name)[0][-1]
    p = torch.nn.Parameter(START.clone())
    group = {"params": [p], "names": ["h.0.mlp.c_fc.weight"], "role": "hidden"}
    optimizer = build_optimizer(name, [group], lr=0.01)
    peak = optimizer.param_groups[0][key]
    for step in range(12):
        part = min(1, step / 8)
        new = 0.5 + ((peak if key == "momentum" else peak[0]) - 0.5) * part
        optimizer.param_groups[0][key] = new if key == "momentum" else (new, peak[1])
        optimizer.zero_grad()
        bowl(p).backward()
        optimizer.step()
    assert torch.allclose(ours, p, rtol=1e-12)


@pytest.mark.parametrize("name", ["lion", "signum", "sgd_sai", "lars", "scion", "soap"])
def test_a_compiled_row_with_changing_momentum_is_not_compiled(name, monkeypatch):
    """Its momentum is a constant of the code: every update would compile again."""
    assert not _compiled_updates(name, {"start": 0.5, "warmup_steps": 4}, monkeypatch)


@pytest.mark.parametrize("name", ["muon", "dion", "muonclip"])
def test_adamw_beside_a_changing_momentum_is_compiled_once(name, monkeypatch):
    calls = _compiled_updates(name, {"start": 0.5, "warmup_steps": 4}, monkeypatch)
    assert len(calls) > 1
    assert len(set(calls)) == 1


def _compiled_updates(name, values, monkeypatch):
    """Constants of what is compiled for a warm-up and three updates."""
    calls = []
    monkeypatch.setattr(
        "optim.core.one_pass.compiled_update",
        lambda update, constants, *a: calls.append(constants) or (lambda *b: False),
    )
    params = [torch.nn.Parameter(torch.ones(200, 200)) for _ in range(2)]
    roles = [("hidden", "h.0.mlp.c_fc.weight"), ("embedding", "wte.weight")]
    row = build_optimizer(
        name,
        [{"params": [p], "role": r, "names": [n]} for p, (r, n) in zip(params, roles, strict=True)],
        **({"momentum": 0.9} if name == "sgd_sai" else {}),
    )
    assert isinstance(row, UpdateRule)
    row.compile = True
    optimizer = wrapped(row, {"momentum_schedule": {"cooldown_steps": 0, **values}})
    optimizer.warm_up()
    for _ in range(3):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    return calls


# ------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("adamw", {"emma": {}}, r"^unknown wrapper 'optimizer.wrap.emma'; did you mean 'ema'\?"),
        ("adamw", {"ema": True}, r"^optimizer.wrap.ema = True: should be a table"),
        ("adamw", {"ema": {"beta": 1}}, r"^unknown key 'optimizer.wrap.ema.beta'"),
        ("adamw", {"ema": {"decay": 1.0}}, r"^optimizer.wrap.ema.decay = 1.0: should be less"),
        ("adamw", {"tail": {"start": 8}}, r"^optimizer.wrap.tail.start = 8 is the end of the run"),
        ("adamw", {"ema_nesterov": {"start": 4, "stop": 4}}, r"stop = 4 is not after start = 4"),
        ("adamw", {"tail": {"start": 9}}, r"^optimizer.wrap.tail.start = 9 is more than the 8"),
        ("adamw", {"outer_nesterov": {"every": 9}}, r"every = 9 is more than the 8 updates"),
        (
            "adamw",
            {"ema_nesterov": {}, "outer_nesterov": {"every": 2}},
            r"^optimizer.wrap.outer_nesterov: AdamW has ema_nesterov around it",
        ),
        (
            "adamw",
            {"momentum_schedule": {"warmup_steps": 5, "cooldown_steps": 4}},
            r"warmup_steps = 5 and cooldown_steps = 4 are more than the 8 updates",
        ),
        ("adamw", {"hyperball": {}}, r"optimizer.roles.hidden.weight_decay = 0, or .*cautious"),
        ("adamw", {"hyperball": {}, "decay": {}}, r"optimizer.roles.hidden.weight_decay = 0"),
        (
            "adamw",
            {"ema": {"judged": True}, "tail": {"judged": True}},
            r"^optimizer.wrap.ema.judged and optimizer.wrap.tail.judged are true; one average",
        ),
        ("schedulefree.AdamWScheduleFree", {"ema": {}}, r"ema: .* averages its weights itself"),
        ("schedulefree.SGDScheduleFree", {"outer_nesterov": {"every": 2}}, r"own account of the"),
        ("prodigyopt.Prodigy", {"hyperball": {}}, r"estimates a step size"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(name, table, message, parameters, groups):
    pytest.importorskip(name.split(".")[0]) if "." in name else None
    optimizer = build_optimizer(name, groups(parameters()), weight_decay=0.1)
    with pytest.raises(ConfigError, match=message) as caught:
        wrapped(optimizer, table, total_steps=8)
    assert "\n" not in str(caught.value)


def test_a_fraction_of_a_run_of_unknown_length_is_refused(parameters, groups):
    for table in ({"tail": {}}, {"momentum_schedule": {"warmup_steps": 1, "cooldown_steps": 1}}):
        with pytest.raises(ConfigError, match=r"not known here; give .*total_steps to build_optim"):
            wrapped(build_optimizer("adamw", groups(parameters())), table)
