"""Presets in configs/optimizer and configs/schedule: one table each, and it resolves."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest
import torch

from optim import (
    OPTIMIZERS,
    SCHEDULES,
    build_optimizer,
    build_schedule,
    resolve_optimizer,
    resolve_schedule,
)

CONFIGS = Path(__file__).parents[2] / "configs"


def presets(kind):
    return [pytest.param(p, id=p.stem) for p in sorted((CONFIGS / kind).glob("*.toml"))]


def table(path, kind):
    text = path.read_text()
    assert text.startswith("#"), "where the numbers come from"
    whole = tomllib.loads(text)
    assert list(whole) == [kind], "nothing but its own table"
    return whole[kind].pop("name"), whole[kind]


def test_every_name_has_a_preset():
    assert set(OPTIMIZERS) <= {p.stem for p in (CONFIGS / "optimizer").glob("*.toml")}
    assert set(SCHEDULES) <= {p.stem for p in (CONFIGS / "schedule").glob("*.toml")}


@pytest.mark.parametrize("path", presets("optimizer"))
def test_optimizer_preset_resolves(path):
    name, hyperparameters = table(path, "optimizer")
    hyperparameters.pop("roles", None)  # resolved with the whole configuration: tests/test_train.py
    resolved = resolve_optimizer(name, hyperparameters)
    assert resolved["lr"] == hyperparameters["lr"]


SOURCE = r"arXiv:\d{4}\.\d{4,5}|[\w-]+/[\w.-]+|Derived: |torch's default|that study's"


@pytest.mark.parametrize("path", [*presets("optimizer"), *presets("schedule")])
def test_preset_names_its_source(path):
    header = "\n".join(itertools.takewhile(lambda x: x[0] == "#", path.read_text().splitlines()))
    torch_schedule = r"|torch\.optim|track 3|nanogpt|The control"
    assert re.search(SOURCE + torch_schedule * (path.parent.name == "schedule"), header), header
    assert "unverified" not in header


@pytest.mark.parametrize(
    ("name", "rates"),  # hidden, embedding: as the sources that the presets name give them
    [
        ("soap", (0.0018, 0.0036)),
        ("shampoo", (0.0018, 0.0036)),
        ("muon_original", (0.02, 0.0036)),
        ("dion", (0.02, 0.0036)),
        ("mars", (0.006, 0.006)),
    ],
)
def test_embeddings_have_the_rate_of_the_source(name, rates):
    preset = tomllib.loads((CONFIGS / "optimizer" / f"{name}.toml").read_text())["optimizer"]
    groups = [
        {"params": [torch.ones(shape, requires_grad=True)], "names": [role], "role": role}
        for role, shape in (("hidden", (4, 4)), ("embedding", (4, 4)), ("vector", (4,)))
    ]
    optimizer = build_optimizer(preset.pop("name"), groups, **preset)
    assert [g["lr"] for g in optimizer.param_groups[:2]] == pytest.approx(rates)


def test_ranks_and_scales_are_those_of_the_scripts_for_this_width():
    """A quarter of 768, in APOLLO's scripts for LLaMA 130M."""
    apollo, mini = (
        tomllib.loads((CONFIGS / "optimizer" / f"{name}.toml").read_text())["optimizer"]
        for name in ("apollo", "apollo_mini")
    )
    assert (apollo["rank"], apollo["scale"], apollo["scaling"]) == (192, 1.0, "channel")
    assert (mini["rank"], mini["scale"], mini["scaling"]) == (1, 192.0, "tensor")


@pytest.mark.parametrize("path", presets("schedule"))
def test_schedule_preset_resolves_at_any_length(path):
    name, hyperparameters = table(path, "schedule")
    resolve_schedule(name, hyperparameters)
    for total_steps in (1, 20, 1000):
        build_schedule(name, total_steps, **hyperparameters)


def test_one_warm_up_for_every_schedule_that_has_one_by_name_and_as_preset():
    """So a bare `--schedule.name wsd` differs from the default run in the shape alone."""
    schedules = {
        preset.stem: table(preset, "schedule") for preset in CONFIGS.glob("schedule/*.toml")
    }
    schedules |= {name: (name, {}) for name in SCHEDULES if name not in ("one_cycle", "cyclic")}
    default = tomllib.loads((CONFIGS / "gpt2_124m.toml").read_text())["schedule"]
    schedules["gpt2_124m"] = default.pop("name"), default
    rise = tuple((t + 1) / 715 for t in range(715))
    for key, (name, hyperparameters) in schedules.items():
        if name not in ("one_cycle", "cyclic"):
            found = build_schedule(name, 19_073, **hyperparameters).factors
            assert found[:715] == rise, key
            assert found[715] > 0.95, key


def test_the_cosine_preset_is_build_nanogpts():
    name, hyperparameters = table(CONFIGS / "schedule" / "cosine.toml", "schedule")
    schedule = build_schedule(name, 19_073, **hyperparameters)
    assert schedule.factors[713:716] == pytest.approx((714 / 715, 1, 1))
    assert schedule(19_073) == pytest.approx(0.1)
