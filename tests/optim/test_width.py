"""Rates by width: their powers by hand, and that they keep what a step does to activations."""

import math
import re

import pytest
import torch

from configs import ConfigError, load
from configs.loading import PRESETS
from optim import OPTIMIZERS, by_role, optimizer_of, resolve
from optim.core.foreign import with_hooks
from optim.core.hyperparameters import complete
from train_gpt2 import GPT

QUICKSTART = str(PRESETS / "quickstart.toml")
WITHOUT = {  # rows for which no rule is known
    "radam", "adafactor", "lamb", "lars", "sophia_g", "prodigy", "muown", "scion", "soap",
    "soap_muon", "kl_soap", "psgd_kron", "shampoo", "galore", "apollo", "normuon", "adamuon",
    "dion",
}  # fmt: skip
WITH = sorted(set(OPTIMIZERS) - WITHOUT)


def mup(name, width, *words, base=64):
    """A configuration of quickstart's shape with this width, resolved."""
    flags = {
        "optimizer.name": name,
        "model.n_embd": width,
        "model.parametrization": "mup",
        "model.base_n_embd": base,
    }
    given = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    return resolve(load([QUICKSTART, *given, *words]))


def groups_of(config, *place):
    with torch.device("meta"):
        optimizer = optimizer_of(config, GPT(config.model).parameter_groups(), *place)
    return {group["role"]: group for group in optimizer.param_groups}


def test_rows_with_a_rule_are_those_that_the_documentation_lists():
    rules = {n: with_hooks(c).width_rule(complete(c, {}, "")) for n, c in OPTIMIZERS.items()}
    assert {name for name, rule in rules.items() if rule is None} == WITHOUT
    text = (PRESETS.parent / "docs" / "optimizers.md").read_text()
    table = text.partition("## Width")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*`) \| ([-\d.]+) \| ([-\d.]+) \| ([-\d.]+) \|", table, re.MULTILINE)
    named = {name: powers for names, *powers in rows for name in re.findall(r"`(\w+)`", names)}
    assert named.keys() == rules.keys() - WITHOUT
    for name, (hidden, embedding, vector) in named.items():
        said = {"hidden": float(hidden), "embedding": float(embedding), "vector": float(vector)}
        assert rules[name] == said, name


@pytest.mark.parametrize(
    ("name", "words", "factors"),
    [  # of hidden matrices, embeddings and vectors at four times the base width
        ("adamw", [], (1 / 4, 1, 1)),
        ("lion", [], (1 / 4, 1, 1)),
        ("sgd", [], (1, 4, 4)),
        ("sgd_sai", [], (1 / 4, 2, 2)),
        ("sgd_sqrtn", [], (1 / 4, 2, 2)),
        ("muon", [], (1 / 2, 1, 1)),
        ("muon", ["--optimizer.scale", "original"], (1, 1, 1)),
        ("normuon", ["--optimizer.scale", "original"], (1, 1, 1)),
        ("dion2", [], (1, 1, 1)),
    ],
)
def test_rates_follow_the_rule_and_decay_per_step_stays(name, words, factors):
    decay = ["--optimizer.weight_decay", "0.1", "--optimizer.lr", "0.01"]
    groups = groups_of(mup(name, 256, *decay, *words))
    for (role, group), factor in zip(groups.items(), factors, strict=True):
        assert group["lr"] == group["initial_lr"] == pytest.approx(0.01 * factor), role
        wanted = 0.0 if role == "vector" else 0.01 * 0.1
        assert group["lr"] * group["weight_decay"] == pytest.approx(wanted), role


@pytest.mark.parametrize("name", WITH)
def test_at_the_base_width_all_is_as_in_the_standard_parametrization(name):
    standard = resolve(load([QUICKSTART, "--optimizer.name", name, "--model.n_embd", "64"]))
    own, plain = groups_of(mup(name, 64)), groups_of(standard)
    for role in plain:
        keys = plain[role].keys() - {"params"}
        assert {key: own[role][key] for key in keys} == {key: plain[role][key] for key in keys}


def test_settings_by_role_come_on_top():
    words = ["--optimizer.roles.hidden.lr_ratio", "3", "--optimizer.roles.vector.weight_decay", "1"]
    config = mup("sgd", 256, *words, "--optimizer.lr", "0.5")
    groups = groups_of(config)
    assert {role: group["lr"] for role, group in groups.items()} == {
        "hidden": 1.5, "embedding": 2.0, "vector": 2.0}  # fmt: skip
    assert groups["vector"]["weight_decay"] == 1 / 4
    assert "x4" in by_role.lines(config)[1]
    assert config.optimizer.roles["hidden"].lr_ratio == 3  # the record has the user's own


# ------------------------------------------------------- what the rules are for, on one linear map


def changed(name, width):
    """Mean change in updates of a model of this width, by role: of W x, an embedding, a vector.

    The gradient has the size that muP's backward pass gives it: 1 / width in each tensor, and in a
    matrix rank one. Adam-mini takes W's rows for its blocks.
    """
    draw = torch.Generator().manual_seed(width)
    x = torch.randn(width, generator=draw)
    config = mup(name, width, "--optimizer.lr", "0.01", "--train.total_steps", "100")
    sizes = {"hidden": (width, width), "embedding": (8, width), "vector": (width,)}
    groups = []
    for role, size in sizes.items():
        p = torch.zeros(size, requires_grad=True)
        p.grad = torch.randn(size, generator=draw) / width
        if role == "hidden":
            p.grad = torch.outer(torch.randn(width, generator=draw) / width, x)
        groups.append({"role": role, "names": [f"h.0.mlp.{role}.weight"], "params": [p]})
    optimizer = optimizer_of(config, groups)
    for _ in range(3):  # ADOPT's first gradient moves nothing
        optimizer.step()
    moved = {group["role"]: group["params"][0].detach() for group in groups}
    moved["hidden"] = moved["hidden"] @ x
    return {role: float(change.abs().mean()) for role, change in moved.items()}


@pytest.mark.parametrize("name", WITH)
def test_an_update_changes_activations_equally_at_every_width(name):
    narrow, wide = changed(name, 64), changed(name, 512)
    assert min(narrow.values()) > 0
    assert wide == pytest.approx(narrow, rel=0.3)  # any other power of 1/2 or 1 is off by 2.8


def test_gradients_under_mup_have_the_size_that_the_rules_assume():
    """Elements of 1 / width in every tensor: so norms of 1 in matrices, else of 1 / sqrt(width)."""
    tokens = torch.randint(257, (8, 33), generator=torch.Generator().manual_seed(1))
    norms = {}
    for width in (64, 1024):
        words = ["--model.n_layer", "1", "--model.n_head", "1", "--model.block_size", "32"]
        model = GPT.initialised(mup("sgd", width, *words).model, 1)
        model(tokens[:, :-1], tokens[:, 1:]).backward()
        for group in model.parameter_groups():
            each = [p.grad.norm() for p in group["params"]]
            norms[group["role"], width] = float(torch.stack(each).norm())
    powers = {
        role: math.log(norms[role, 1024] / norms[role, 64], 16)
        for role in ("hidden", "embedding", "vector")
    }
    assert powers == pytest.approx({"hidden": 0, "embedding": -0.5, "vector": -0.5}, abs=0.1)


# ----------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("soap", [], "no rule by width is known for 'soap'; give optimizer.name one of sgd, adam,"),
        ("torch.optim.Adamax", [], "no rule by width is known for 'torch.optim.Adamax'; give"),
        ("adamuon", [], "for 'adamuon'; give optimizer.name one of sgd,"),
        ("sgd_sai", ["--optimizer.normalise", "true"], "for 'sgd_sai' with these hyperparameters"),
        ("adam", ["--optimizer.roles.hidden.weight_decay", "0.1"], "for 'adam' with these hyper"),
        ("muon", ["--optimizer.renormalise", "true"], "for 'muon' with these hyperparameters"),
        ("normuon", ["--optimizer.scale", "original", "--optimizer.renormalise", "true"], "normu"),
        ("adagrad", ["--optimizer.initial_accumulator_value", "0.1"], "for 'adagrad' with these"),
        (
            "adamw",
            ["--optimizer.wrap.decay.scale", "schedule"],
            "optimizer.wrap.decay (cautious = False, scale = schedule); leave one of them out",
        ),
        (
            "muon",
            ["--optimizer.wrap.hyperball.split_qkv", "true"],
            "no rule by width is known with optimizer.wrap.hyperball (split_qkv = True)",
        ),
    ],
)
def test_without_a_rule_a_run_is_refused_in_one_line(name, words, said):
    config = mup(name, 128, *words)
    with pytest.raises(ConfigError) as caught:
        by_role.check(config, 1)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_average_of_weights_changes_no_rate():
    words = ["--optimizer.wrap.ema.decay", "0.9", "--optimizer.wrap.decay.cautious", "true"]
    assert groups_of(mup("adamw", 256, *words))["hidden"]["lr"] == pytest.approx(3e-3 / 4)


class Mine(torch.optim.SGD):
    """A class from elsewhere that states its rule."""

    width_powers = {"hidden": 2.0, "embedding": 0.0, "vector": 0.0}  # noqa: RUF012


class Half(torch.optim.SGD):
    """Its rule says nothing of embeddings and vectors."""

    width_powers = {"hidden": 0.0}  # noqa: RUF012


def test_a_rule_from_elsewhere_that_lacks_a_role_is_refused_in_one_line():
    config = mup(f"{Half.__module__}.Half", 128, "--optimizer.lr", "1")
    with pytest.raises(ConfigError, match="has no power for role 'embedding'; it needs hidden,"):
        by_role.check(config, 1)


def test_a_class_from_elsewhere_may_state_its_rule():
    config = mup(f"{Mine.__module__}.Mine", 128, "--optimizer.lr", "1")
    assert [group["lr"] for group in groups_of(config).values()] == [4, 1, 1]


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd_sai"])
def test_ranks_that_share_the_work_take_the_same_rates(name):
    alone = groups_of(mup(name, 256))
    for rank in range(2):
        shared = groups_of(mup(name, 256, "--train.shard_optimizer", "true"), rank, 2)
        for role, group in shared.items():
            assert group["lr"] == alone[role]["lr"]
            assert group["weight_decay"] == alone[role]["weight_decay"]
