"""One row of numbers per arm."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from report.leaderboard import COSTS, SCORES, Spread, row
from report.verdict import Comparison
from tests.report.studies import BASE, FIVE, a_study, changed

COMPARISON = Comparison("base", "better", difference=-0.5)


def a_row(study, arm, numbers, comparison=None, target=None):
    """The row of an arm with these values by seed."""
    values = {(seed, seed): x for seed, x in numbers.items()}
    return row(study, arm, values, comparison, target)


def test_mean_spread_and_interval_are_those_of_the_values():
    numbers = {1: 3.0, 2: 3.1, 3: 3.5}
    x = np.array(list(numbers.values()))
    found = a_row(a_study(FIVE), "good", numbers)
    assert found.mean == pytest.approx(3.2)  # and not the median, 3.1
    assert found.std == pytest.approx(x.std(ddof=1))
    interval = stats.t.interval(0.95, 2, x.mean(), stats.sem(x))
    assert (found.low, found.high) == pytest.approx(interval)
    assert (found.arm, found.is_baseline, found.n) == ("good", False, 3)
    assert found.values == {(1, 1): 3.0, (2, 2): 3.1, (3, 3): 3.5}
    assert a_row(a_study(FIVE), "base", numbers).is_baseline


@pytest.mark.parametrize(
    ("numbers", "mean"), [({}, None), ({1: 3.0}, 3.0), ({1: 3.0, 2: math.inf}, math.inf)]
)
def test_without_two_finite_values_there_is_a_mean_at_most(numbers, mean):
    found = a_row(a_study(FIVE), "good", numbers)
    assert (found.mean, found.std, found.low, found.high) == (mean, None, None, None)


def test_two_values_have_a_standard_deviation():
    assert a_row(a_study(FIVE), "good", {1: 3.0, 2: 3.2}).std == pytest.approx(0.2 / math.sqrt(2))


def test_an_arm_of_a_length_is_the_baseline_of_that_length_and_has_the_arms_tuning():
    lengths = {"a @ 100": ("a", 100), "b @ 100": ("b", 100)}
    study = a_study({"a @ 100": BASE, "b @ 100": BASE}, baseline="a", lengths=lengths)
    assert a_row(study, "a @ 100", BASE).is_baseline
    assert not a_row(study, "b @ 100", BASE).is_baseline
    assert a_row(study, "b @ 100", BASE).tuned is None
    ledger = SimpleNamespace(arms={"b": "the ledger's entry"})
    assert a_row(replace(study, tuning=ledger), "b @ 100", BASE).tuned == "the ledger's entry"
    assert a_row(replace(study, tuning=ledger), "a @ 100", BASE).tuned is None


def test_runs_are_counted_by_status():
    study = changed(
        changed(a_study(FIVE), "good", 1, status="stopped"), "good", 2, status="diverged"
    )
    found = a_row(study, "good", {3: 3.0})
    assert (found.planned, found.n, found.diverged) == (3, 1, 1)


def test_numbers_of_the_summaries_are_given_as_median_and_extremes():
    study = a_study(FIVE)
    each = {1: 5.0, 2: math.nan, 3: 7.0}
    for seed, value in each.items():
        numbers = dict.fromkeys((*COSTS, *SCORES, "mean_lr_factor", "last_lr_factor"), value)
        study = changed(study, "good", seed, summary=numbers | {"train_seconds": None})
    found = a_row(study, "good", BASE)
    names = {*COSTS} - {"train_seconds"}
    assert found.costs == dict.fromkeys(names, Spread(6.0, 5.0, 7.0, runs=2))
    assert found.scores == dict.fromkeys(SCORES, Spread(6.0, 5.0, 7.0, runs=2))
    assert (found.mean_lr_factor, found.last_lr_factor) == (6.0, 6.0)
    without = a_row(a_study(FIVE), "good", BASE)
    assert (without.costs, without.scores, without.mean_lr_factor) == ({}, {}, None)


def test_learning_rate_factors_are_not_confused():
    study = a_study({"base": {1: 3.0}})
    summary = {"mean_lr_factor": 0.5, "last_lr_factor": 0.1}
    found = a_row(changed(study, "base", 1, summary=summary), "base", {})
    assert (found.mean_lr_factor, found.last_lr_factor) == (0.5, 0.1)


@pytest.mark.parametrize(
    ("finals", "expected"),
    [
        ({1: 3.0}, Spread(50, 50, 50)),
        ({1: 3.0, 2: 3.0, 3: 5.0}, Spread(50, 50, 50, runs=3, missed=1)),
        ({1: 5.0, 2: 5.0}, Spread(math.inf, math.inf, math.inf, runs=2, missed=2)),
        ({1: 3.0, 2: 2.0}, Spread(45, 40, 50, runs=2)),
    ],
)
def test_costs_of_the_target_are_over_the_runs_that_ended(finals, expected):
    """Straight lines from 5.5 in 100 steps, evaluated every 10 steps."""
    study = a_study({"base": finals | {9: 1.0}})
    study = changed(study, "base", 9, status="stopped")
    found = a_row(study, "base", {}, target=4.25)
    assert found.to_target["steps_to_target"] == expected
    assert set(found.to_target) == {"steps_to_target", "seconds_to_target", "tokens_to_target"}
    assert a_row(study, "base", {}).to_target == {}


def test_no_run_that_ended_has_no_costs_of_the_target():
    study = changed(a_study({"base": {1: 3.0, 2: 3.0}}), "base", 1, status="stopped")
    empty = {"step": np.array([]), "val/loss": np.array([])}
    study = changed(study, "base", 2, status="diverged", val=empty)
    assert a_row(study, "base", {}, target=4.25).to_target == {}


def test_speedups_are_only_for_arms_that_may_be_compared():
    study = a_study(FIVE)
    assert a_row(study, "good", BASE, COMPARISON).speedups["steps"].ratio > 1
    assert a_row(study, "good", BASE, replace(COMPARISON, call="refused")).speedups == {}
    assert a_row(study, "base", BASE).speedups == {}
    assert a_row(replace(study, baseline=None), "good", BASE, COMPARISON).speedups == {}
    assert a_row(study, "good", BASE, COMPARISON).comparison is COMPARISON
