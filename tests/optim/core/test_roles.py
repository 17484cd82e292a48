"""Settings by role: what a role gets, for every row and for classes from elsewhere."""

import re

import pytest
import torch

from configs import load
from configs.loading import PRESETS
from configs.validation import ConfigError
from optim import (
    OPTIMIZERS,
    build_optimizer,
    curves,
    optimizer_of,
    resolve,
    resolve_optimizer,
    schedule_conflict,
    schedule_of,
)
from optim.core.foreign import with_hooks
from optim.core.roles import MOVED

QUICKSTART = str(PRESETS / "quickstart.toml")
by_role = {name for name, cls in OPTIMIZERS.items() if with_hooks(cls).acts_on("embedding", "lr")}


def resolved(*flags):
    return resolve(load([QUICKSTART, *flags]))


def rates(optimizer):
    return {group["role"]: group["lr"] for group in optimizer.param_groups}


def one_line(call, *arguments, **keywords):
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_but_one_take_a_ratio():
    assert set(OPTIMIZERS) - by_role == {"prodigy"}


@pytest.mark.parametrize("name", sorted(by_role))
def test_a_ratio_is_a_rate_of_the_groups_own(name, parameters, groups, replay):
    """Whether by role or by hand: the same bits, and the other roles' as if there were none."""
    roles = {"embedding": {"lr_ratio": 0.5}}
    one, two, plain = parameters(), parameters(), parameters()
    optimizer = build_optimizer(name, groups(one), lr=0.25, roles=roles, total_steps=100)
    assert rates(optimizer) == {"embedding": 0.125, "hidden": 0.25, "vector": 0.25}
    first, *others = groups(two)
    replay(optimizer, one, last=3)
    replay(
        build_optimizer(name, [{**first, "lr": 0.125}, *others], lr=0.25, total_steps=100),
        two,
        last=3,
    )
    replay(build_optimizer(name, groups(plain), lr=0.25, total_steps=100), plain, last=3)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert [key for key in one if not torch.equal(one[key], plain[key])] == ["wte"]


def test_a_sweep_of_the_rate_keeps_the_ratios(parameters, groups):
    for lr in (1e-3, 4e-3):
        roles = {"vector": {"lr_ratio": 3.0}, "hidden": {"weight_decay": 0.2}}
        optimizer = build_optimizer("adamw", groups(parameters()), lr=lr, roles=roles)
        assert rates(optimizer) == {"embedding": lr, "hidden": lr, "vector": 3 * lr}


def test_a_role_stands_above_the_groups_own_values(parameters, groups):
    roles = {"vector": {"weight_decay": 0.3, "betas": [0.8, 0.9]}}
    optimizer = build_optimizer("adamw", groups(parameters()), weight_decay=0.1, roles=roles)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.1, 0.3]
    assert [g["betas"] for g in optimizer.param_groups] == [(0.9, 0.999)] * 2 + [(0.8, 0.9)]


@pytest.mark.parametrize("name", ["torch.optim.Adamax", "torch.optim.ASGD"])
def test_a_class_from_elsewhere_takes_them_too(name, parameters, groups):
    roles = {"embedding": {"lr_ratio": 2.0, "weight_decay": 0.5}}
    optimizer = build_optimizer(name, groups(parameters()), lr=0.01, roles=roles)
    assert rates(optimizer) == {"embedding": 0.02, "hidden": 0.01, "vector": 0.01}
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.5, 0, 0]


def test_the_first_update_of_a_role_is_worked_by_hand(parameters, groups, replay):
    named, before = parameters(), parameters()
    roles = {"embedding": {"lr_ratio": 2.0}, "vector": {"lr_ratio": 0.0}}
    replay(build_optimizer("lion", groups(named), lr=0.5, roles=roles), named, last=1)
    sizes = {key: (p - before[key]).abs().mean().item() for key, p in named.items()}
    assert sizes == pytest.approx({"wte": 1, "c_attn": 0.5, "c_proj": 0.5, "bias": 0, "ln": 0})


MISTAKES = [
    ("adamw", {"embedding": {"lr": 1e-3}}, "unknown key 'optimizer.roles.embedding.lr'; give lr_"),
    ("adamw", {"embedding": {"beta": 1}}, "unknown key .*; did you mean 'betas'"),
    ("adamw", {"vector": {"lr_ratio": -1.0}}, r"vector.lr_ratio = -1.0: should be a number"),
    ("adamw", {"vector": {"lr_ratio": True}}, r"vector.lr_ratio = True: should be a number"),
    ("adamw", {"vector": {"betas": 0.9}}, r"optimizer.roles.vector.betas = 0.9: should be a list"),
    ("adamw", {"head": {"lr_ratio": 2.0}}, "no parameter has this role; the roles here: "),
    ("muon", {"embedding": {"momentum": 0.9}}, "own momentum for this role; it can have: lr_ratio"),
    ("muon", {"hidden": {"betas": (0.9, 0.9)}}, "own betas for this role"),
    ("soap", {"vector": {"split_qkv": True}}, "own split_qkv for this role"),
    ("prodigy", {"vector": {"lr_ratio": 2.0}}, "own lr_ratio for this role"),
    ("prodigy", {"vector": {"d0": 1e-3}}, "own d0 for this role"),
    ("sophia_g", {"hidden": {"k": 3}}, "own k for this role"),
    ("scion", {"hidden": {"hidden_radius": 3.0}}, "own hidden_radius for this role"),
]


@pytest.mark.parametrize(("name", "roles", "message"), MISTAKES)
def test_a_mistake_is_one_line(name, roles, message, parameters, groups):
    text = one_line(build_optimizer, name, groups(parameters()), roles=roles)
    assert re.search(message, text), text


def test_groups_without_a_role_have_none(parameters):
    params = parameters().values()
    text = one_line(build_optimizer, "adamw", params, roles={"hidden": {"lr_ratio": 2.0}})
    assert text.endswith('the roles here: none, since no group has a key "role"')


@pytest.mark.parametrize("key", sorted(MOVED))
def test_a_key_of_earlier_versions_names_its_successor(key):
    name = "mars" if key.startswith("vector") else "muon"
    text = one_line(resolve_optimizer, name, {key: 1.0})
    assert text.startswith(f"optimizer.{key} is no more; give optimizer.roles.")


def test_flags_reach_a_role_and_the_table_has_it_whole():
    config = resolved("--optimizer.roles.embedding.lr_ratio", "2")
    assert config.table()["optimizer"]["roles"] == {"embedding": {"lr_ratio": 2.0}}
    own = resolved("--optimizer.roles.vector.betas", "0.8,0.9").table()["optimizer"]["roles"]
    assert own == {"vector": {"lr_ratio": 1.0, "betas": (0.8, 0.9)}}
    assert "roles" not in resolved().table()["optimizer"] | resolved().table()["schedule"]


def test_a_run_with_roles_is_another_run():
    flags = ["--optimizer.roles.embedding.lr_ratio", "2"]
    schedule = ["--schedule.roles.hidden.name", "linear"]
    names = {resolved(*f).run_name for f in ([], flags, schedule, [*flags, *schedule])}
    assert len(names) == 4


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "--optimizer.roles.embeddings.lr_ratio",
            r"unknown role 'embeddings'; did you mean 'embedding",
        ),
        ("--schedule.roles.body.name", r"unknown role 'body'; .*valid: embedding, head, hidden"),
        ("--optimizer.roles.embedding", r"unknown key 'optimizer.roles.embedding'"),
        ("--schedule.roles.hidden.min_lr", r"'schedule.roles.hidden.name' is missing"),
    ],
)
def test_a_wrong_flag_is_one_line(flag, message):
    text = one_line(resolved, flag, "cosine" if flag.endswith("name") else "2")
    assert re.search(message, text), text


def test_a_schedule_by_role_serves_its_parameters(parameters, groups):
    flags = "--schedule.roles.hidden.name linear_to_zero --schedule.roles.hidden.warmup_steps 0"
    config = resolved(*flags.split())
    schedule, alone = schedule_of(config), schedule_of(resolved())
    assert [schedule(step, "embedding") for step in range(301)] == list(alone.factors)
    assert schedule(150, "hidden") == pytest.approx(0.5)
    facts = schedule.facts()
    assert facts["mean_lr_factor"] == pytest.approx(0.5, abs=0.01)
    assert facts["mean_lr_factor_others"] == alone.mean_factor
    optimizer = optimizer_of(config, groups(parameters()))
    assert set(curves(optimizer, schedule)) == {"optimizer/lr_hidden", "optimizer/lr_vector"}
    assert curves(optimizer, alone) == {}


def test_schedules_by_role_need_their_parameters_and_rates_of_their_own(parameters, groups):
    head = resolved("--schedule.roles.head.name", "linear")
    text = one_line(optimizer_of, head, groups(parameters()))
    assert text.startswith("schedule.roles.head: no parameter has this role")
    flags = ["--optimizer.name", "prodigy", "--schedule.roles.hidden.name", "linear"]
    assert "'prodigy' has one rate for all parameters" in one_line(resolved, *flags)


def test_a_schedule_by_role_that_works_against_the_method_is_told(parameters, groups):
    flags = ["--optimizer.name", "schedule_free_adamw", "--schedule.name", "constant"]
    for role in ([], ["--schedule.roles.vector.name", "linear"]):
        config = resolved(*flags, *role)
        optimizer = optimizer_of(config, groups(parameters()))
        warning = schedule_conflict(optimizer, schedule_of(config))
        assert bool(role) == bool(warning and "schedule 'linear' decays it too" in warning)


@pytest.mark.parametrize(("name", "key"), [("soap", "adamw_lr_ratio"), ("mars", "vector_betas")])
def test_the_optimizer_of_an_earlier_version_can_be_built(name, key, parameters, groups):
    """Then `--init` reads the weights of such a run; SOAP did not split c_attn."""
    config = resolved("--optimizer.name", name)
    kept = {k: v for k, v in config.optimizer.model_dump().items() if k != "split_qkv"}
    earlier = type(config.optimizer)(**kept, **{key: 0.5})
    earlier = config.model_copy(update={"optimizer": earlier})
    assert dict(optimizer_of(earlier, groups(parameters())).kinds())["hidden"] != "qkv"
    assert key in one_line(resolve, earlier)


class RateFree(torch.optim.SGD):
    """Finds its own rate unless one is given."""

    def __init__(self, params, lr: float | None = None):
        super().__init__(params, lr=0.5 if lr is None else lr)


def test_a_class_without_a_default_rate_is_built_and_has_nothing_to_scale(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "rate_free", RateFree)
    group = {"params": [torch.nn.Parameter(torch.ones(2, 2))], "role": "hidden"}
    assert build_optimizer("rate_free", [group]).param_groups[0]["lr"] == 0.5
    with pytest.raises(ConfigError, match=r"give optimizer\.lr beside it"):
        build_optimizer("rate_free", [group], roles={"hidden": {"lr_ratio": 2.0}})
