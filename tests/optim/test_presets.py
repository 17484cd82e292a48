"""Presets in configs/optimizer and configs/schedule: one table each, and it resolves."""

import tomllib
from pathlib import Path

import pytest

from optim import OPTIMIZERS, SCHEDULES, build_schedule, resolve_optimizer, resolve_schedule

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


@pytest.mark.parametrize("path", presets("schedule"))
def test_schedule_preset_resolves_at_any_length(path):
    name, hyperparameters = table(path, "schedule")
    resolve_schedule(name, hyperparameters)
    for total_steps in (1, 20, 1000):
        build_schedule(name, total_steps, **hyperparameters)


def test_the_cosine_preset_is_build_nanogpts():
    name, hyperparameters = table(CONFIGS / "schedule" / "cosine.toml", "schedule")
    schedule = build_schedule(name, 19_073, **hyperparameters)
    assert schedule.factors[713:716] == pytest.approx((714 / 715, 1, 1))
    assert schedule(19_073) == pytest.approx(0.1)
