"""Shipped contests do what they say: rates, grids, run-length settings, and who takes part."""

import csv
import functools
import itertools
import json
import re
import tomllib

import pytest
import torch

import optim
from configs import load
from contest import file as contests
from contest.job import resolved
from optim.core.matrix import MatrixRule
from optim.wrappers import WRAPPERS
from tests.jobs import ROOT

RESULTS = ROOT / "docs/results"
SHIPPED = {path.stem: path for path in sorted((ROOT / "configs/contest").glob("*.toml"))}
TUNED = [name for name, path in SHIPPED.items() if "[contest.tune]" in path.read_text()]
OF_OPTIMIZERS = ["optimizers", "matrices", "memory", "textbook", "sgd_sai", "large_batch"]
SMALL = ["optimizers_small", "wrappers_small", "horizons_small", "leaders_small"]


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    monkeypatch.chdir(ROOT)  # base files are given as for train_gpt2.py


@functools.cache
def configurations(name):
    """The complete configuration of each arm, untuned."""
    contest = contests.read(SHIPPED[name])
    return {arm.name: resolved(tuple(contest.arguments(arm, (1, 1)))) for arm in contest.arms}


def groups():
    """One parameter of each role."""
    shapes = {"hidden": (4, 4), "embedding": (4, 4), "vector": (4,)}
    return [
        {"params": [torch.nn.Parameter(torch.ones(shape))], "names": [role], "role": role}
        for role, shape in shapes.items()
    ]


def own_value(config, key):
    """What an arm has for a key of the optimizer before it is tuned."""
    values = config.optimizer.model_dump()
    for word in key.removeprefix("optimizer.").split("."):  # of a role: roles.embedding.lr_ratio
        values = values[word]
    return values


def comments(path, arm):
    """The head of a contest file and the arm's own lines, comments only."""
    head, *arms = path.read_text().split("[[arm]]")
    own = next(text for text in arms if tomllib.loads(text)["name"] == arm)
    return " ".join(re.findall(r"#\s*(.*)", head + own))


def numbers(text):
    return {float(word) for word in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?", text)}


def factors(key, values):
    """Ratios of neighbours; of 1 - m for a momentum or an average m, which nears 1."""
    nears_one = key.removeprefix("optimizer.") in ("momentum", "alpha")
    scale = [1 - value if nears_one else value for value in values]
    return [b / a for a, b in itertools.pairwise(scale)]


def centre(key, values):
    """The value in the middle; of an even number, that between two by equal factors."""
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    if key.removeprefix("optimizer.") in ("momentum", "alpha"):
        return 1 - ((1 - low) * (1 - high)) ** 0.5
    return (low * high) ** 0.5


def test_every_optimizer_is_in_a_contest():
    present = set()
    for name in OF_OPTIMIZERS:
        contest = contests.read(SHIPPED[name])
        arguments = [contest.arguments(arm, (1, 1)) for arm in contest.arms]
        present |= {load(words).optimizer.name for words in arguments}
    assert set(optim.OPTIMIZERS) <= present


def test_small_contest_has_every_optimizer_that_its_head_does_not_cut():
    found = configurations("optimizers_small")
    head = SHIPPED["optimizers_small"].read_text().split("[contest]")[0].replace("\n# ", " ")
    said = re.sub(r"\(.*?\)", "", head.partition("Cut for time:")[2].partition(". ")[0])
    cut = set(re.findall(r"\w+", said))
    assert not found.keys() & cut
    assert {c.optimizer.name for c in found.values()} | cut >= set(optim.OPTIMIZERS)


def test_small_contest_of_wrappers_has_all_on_adamw_and_muon_but_averages_on_adamw():
    found = configurations("wrappers_small").values()
    assert [c.optimizer.name for c in found if not c.optimizer.wrap] == ["adamw", "muon"]
    wrapped = {(c.optimizer.name, name) for c in found for name in c.optimizer.wrap}
    averages = {"ema", "lawa", "tail"}
    rest = set(WRAPPERS) - averages
    assert wrapped == {("adamw", w) for w in WRAPPERS} | {("muon", w) for w in rest}


def test_small_contest_of_wrappers_compares_each_with_the_same_optimizer_as_in_that_of_optimizers():
    ours, theirs = (configurations(name) for name in ("wrappers_small", "optimizers_small"))
    for name in ("adamw", "muon"):
        assert ours[name] == theirs[name]
    contest = contests.read(SHIPPED["wrappers_small"])
    for arm in contest.arms:
        around, wrapped, _ = arm.name.partition("-")
        if wrapped:
            assert (arm.against or contest.table.baseline) == around


def test_the_check_has_the_settings_that_the_small_contest_of_optimizers_chose():
    ours, theirs = (contests.read(SHIPPED[n]) for n in ("check_small", "optimizers_small"))
    chosen = json.loads((RESULTS / "optimizers_small/tuning.json").read_text())["arms"]
    of_theirs = {arm.name: arm for arm in theirs.arms}
    for arm in ours.arms:
        tuned = theirs.arguments(of_theirs[arm.name], (1, 1), chosen[arm.name]["best"])
        assert resolved(tuple(ours.arguments(arm, (1, 1)))) == resolved(tuple(tuned))


def test_the_check_expects_the_losses_that_the_small_contest_of_optimizers_published():
    rows = csv.DictReader((RESULTS / "optimizers_small/results.csv").read_text().splitlines())
    published = {(row["arm"], row["role"], row["seed"]): row["final_val_loss"] for row in rows}
    expected = tomllib.loads((RESULTS / "expected_small.toml").read_text())["arms"]
    assert expected.keys() == {arm.name for arm in contests.read(SHIPPED["check_small"]).arms}
    for arm, seeds in expected.items():
        for seed, run in seeds.items():
            assert run["loss"] == float(published[arm, "report", seed])


@pytest.mark.parametrize("name", SMALL)
def test_averages_of_a_small_contest_remember_at_most_a_quarter_of_the_run(name):
    for arm, config in configurations(name).items():
        values, _ = optim.counted_in_updates(config)
        kept = [values.get(key) for key in ("momentum", "alpha", "beta1", "beta2", "shampoo_beta")]
        first, *others = values.get("betas", (0.0,))
        every = values.get("k", 1)  # Sophia's curvature is estimated in every k-th update
        memories = [1 / (1 - beta) for beta in (first, *(x for x in kept if x))]
        memories += [every / (1 - beta) for beta in others]
        assert max(memories) <= config.train.total_steps / 4, (arm, memories)


@pytest.mark.parametrize("name", TUNED)
def test_grids_have_equal_factors_around_a_centre_that_is_the_arms_own_or_named(name):
    contest = contests.read(SHIPPED[name])
    for arm, config in zip(contest.arms, configurations(name).values(), strict=True):
        for key, values in arm.grid.items():
            ratios = factors(key, values)
            assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=0.02), (arm.name, key)
            middle = centre(key, values)
            named = numbers(comments(SHIPPED[name], arm.name)) | {own_value(config, key)}
            close = [x for x in named if x == pytest.approx(middle, rel=1e-3)]
            assert close, (arm.name, key, middle)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "pilot_a"])  # as preset
def test_run_length_hyperparameters_fit_the_run(name):
    for arm, config in configurations(name).items():
        optim.schedule_of(config)
        values, _ = optim.counted_in_updates(config)
        if config.optimizer.name == "ademamix":
            assert values["warmup_steps"] == config.train.total_steps, arm
            memory = 1 / (1 - values["betas"][2])
            assert memory < config.train.total_steps / 4, arm
        if config.optimizer.name == "adam_mini" and config.train.total_steps < 10_000:
            assert values["value_blocks"] == "whole", arm
        steps = [
            value
            for key, value in values.items()
            if key.endswith(("_step", "_steps", "_gap", "_frequency")) and key != "ns_steps"
        ]
        assert all(step <= config.train.total_steps for step in steps), arm


@pytest.mark.parametrize("name", [*OF_OPTIMIZERS, *SMALL])
def test_all_adamw_in_a_contest_has_the_same_betas(name):
    """On embeddings and vectors, which are a third of GPT-2 124M."""
    for arm, config in configurations(name).items():
        optimizer = optim.optimizer_of(config, groups())
        adamw = config.optimizer.name == "adamw"
        if adamw or isinstance(optimizer, MatrixRule):
            inner = [g for g in optimizer.param_groups if adamw or g["role"] != "hidden"]
            assert [g["betas"] for g in inner] == [(0.9, 0.95)] * len(inner), arm


def test_track_3_trains_each_arm_as_long_as_its_entry():
    config = configurations("track3")
    assert {arm: c.train.total_steps for arm, c in config.items()} == {
        "adamw": 4950,
        "muon": 3250,
        "normuon": 3250,
        "muon_hyperball": 3250,
        "kl_soap_hyperball": 3125,
    }
    assert {c.train.batch_tokens for c in config.values()} == {524_288}
    assert contests.read(SHIPPED["track3"]).table.target == 3.28


def test_track_3_has_the_rates_of_its_entries():
    """Of Muon, entry 36, and of NorMuon, entry 10, whose schedule ends 50 updates after the run."""
    config = configurations("track3")

    def factor(t, steps, cool_down=0.7):
        return min(1.0, (1 - t / steps) / cool_down)

    for arm, steps in (("muon", 3250), ("normuon", 3300)):
        ours = optim.schedule_of(config[arm]).factors[:-1]
        assert ours == pytest.approx([factor(t, steps) for t in range(len(ours))], abs=1e-12)
    for arm, others in (("muon_hyperball", 0.85), ("kl_soap_hyperball", 0.4)):  # entries 37, 19
        schedule, steps = optim.schedule_of(config[arm]), config[arm].train.total_steps
        hidden = [1 - t / steps for t in range(steps)]
        assert schedule.of("hidden").factors[:-1] == pytest.approx(hidden, abs=1e-12)
        aux = [factor(t, steps, others) for t in range(steps)]
        # Ours begins with a whole update, theirs at 487.5.
        assert schedule.of("embedding").factors[:-1] == pytest.approx(aux, abs=1 / steps)
    muon = optim.optimizer_of(config["muon"], groups())
    adamw = optim.optimizer_of(config["adamw"], groups())
    assert {g["role"]: g["lr"] for g in muon.param_groups} == pytest.approx(
        {"hidden": 0.025, "embedding": 0.004, "vector": 0.015}
    )
    assert {g["role"]: g["lr"] for g in adamw.param_groups} == pytest.approx(
        {"hidden": 0.001, "embedding": 0.004, "vector": 0.015}
    )
    assert {g["role"]: g["weight_decay"] for g in muon.param_groups} == {
        "hidden": 0.05,
        "embedding": 0.001,
        "vector": 0.001,
    }
