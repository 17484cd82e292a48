"""Speed-ups and costs of a target: closed forms, and record.metrics on the lines."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from record import metrics
from report.speedups import crossing, to_target
from tests.report.studies import a_run, a_study, changed, rows


def test_speedup_is_interpolated_on_the_val_curve():
    """Straight lines from 5.5: to 3.5 in 100 steps, to 3.0 in 100 steps at twice the time."""
    study = a_study({"base": {1: 3.5, 2: 3.5}, "arm": {1: 3.0, 2: 3.0}})
    for seed in (1, 2):
        study = changed(study, "arm", seed, train=a_run("arm", seed, 3.0, seconds=100).train)
    found = rows(study)["arm"].speedups
    assert found["tokens"].ratio == pytest.approx(1.25)  # 2.5 / 2.0
    assert found["steps"].ratio == pytest.approx(1.25)
    assert found["flops"].ratio == pytest.approx(1.25)
    assert found["seconds"].ratio == pytest.approx(0.625)
    assert (found["steps"].low, found["steps"].high) == pytest.approx((1.25, 1.25))
    worse = rows(a_study({"base": {1: 3.5, 2: 3.5}, "arm": {1: 4.0, 2: 4.0}}))["arm"]
    assert worse.speedups["tokens"].words == "not reached"
    assert worse.to_target["steps_to_target"].median == math.inf


def test_speedup_interval_covers_the_seeds():
    study = a_study({"base": {1: 3.5, 2: 3.5, 3: 3.5}, "arm": {1: 3.0, 2: 3.2, 3: 3.4}})
    s = rows(study)["arm"].speedups["steps"]
    assert s.low == pytest.approx(2.1 / 2)  # all draws the slowest seed
    assert s.high == pytest.approx(2.5 / 2)
    assert s.low < s.ratio < s.high


def test_crossing_at_the_start_and_never():
    costs, losses = np.array([[0.0, 1.0, 2.0]] * 3), np.array([[5.0, 4.0, 3.0]] * 3)
    at = crossing(costs, losses, np.array([6.0, 3.25, 2.0]))
    assert at.tolist() == [0.0, 1.75, math.inf]


@given(st.lists(st.floats(1, 9), min_size=2, max_size=30), st.floats(1, 9))
@settings(max_examples=60, deadline=None)
def test_costs_to_target_are_those_of_the_stream(values, target):
    steps = len(values) - 1
    lines = []
    for s, loss in enumerate(values):
        lines.append({"step": s, "val/loss": loss})
        if s < steps:
            lines.append({"step": s, "train/loss": 1.0, "time/train_seconds": 0.5 * (s + 1),
                          "tokens": 512 * (s + 1)})  # fmt: skip
    train = [x for x in lines if "train/loss" in x]
    run = replace(
        a_run("a", 1, 3.0),
        train={name: np.array([x[name] for x in train], dtype=float) for name in train[0]},
        val={"step": np.arange(len(values), dtype=float), "val/loss": np.array(values)},
    )
    assert to_target(run, target) == metrics.to_target(lines, target)
