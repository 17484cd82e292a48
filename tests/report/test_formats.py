"""Numbers as words."""

import math

import pytest

from report.formats import hours, probability, ranged, ranks, setting, short
from report.leaderboard import Spread


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, "–"),
        (0.00001, "< 0.0001"),
        (0.0123, "0.012"),
        (0.4, "0.4"),
        (0.0496, "0.0496"),
        (0.0512, "0.0512"),
        (0.05, "0.05"),
        (0.0499996, "0.0499996"),
        (0.0500004, "0.05"),
    ],
)
def test_a_probability_near_the_level_has_the_digits_that_tell_its_side(p, text):
    assert probability(p) == text


@pytest.mark.parametrize("p", [0.0495, 0.04999999, 0.05, 0.050001, 0.0549])
def test_what_is_printed_lies_on_the_side_of_the_level_where_the_value_lies(p):
    assert (float(probability(p)) < 0.05) == (p < 0.05)


@pytest.mark.parametrize(
    ("spread", "text"),
    [
        (None, "–"),
        (Spread(60, 60, 60), "60"),
        (Spread(70, 60, 80, runs=3), "70 (60 to 80)"),
        (Spread(65, 60, 70, runs=3, missed=1), "60 to 70 in 2 of 3 runs, else not reached"),
        (Spread(60, 60, 60, runs=3, missed=2), "60 in 1 of 3 runs, else not reached"),
        (Spread(math.inf, math.inf, math.inf, runs=3, missed=3), "not reached"),
    ],
)
def test_costs_that_some_runs_never_reach_are_words(spread, text):
    assert ranged(spread) == text


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (None, "–"),
        (math.inf, "not reached"),
        (0.012345, "0.0123"),
        (999.4, "999"),
        (999.7, "1,000"),
        (-999.7, "-1,000"),
        (12345.6, "12,346"),
    ],
)
def test_significant_digits_are_never_printed_as_a_power_of_ten_above_one(x, text):
    assert short(x) == text


def test_a_setting_has_short_names_where_they_differ():
    assert setting({"optimizer.lr": 0.001, "schedule.cycles": 4}) == "lr = 0.001, cycles = 4"
    both = {"optimizer.warmup": 1, "schedule.warmup": 2}
    assert setting(both) == "optimizer.warmup = 1, schedule.warmup = 2"
    assert setting(None) == "–"


def test_ranks_and_times_read_as_they_are_said():
    assert [ranks(None), ranks((1, 4)), ranks((2, 2))] == ["–", "1–4", "2"]
    assert [hours(42), hours(210), hours(43_560)] == ["42 s", "3.5 min", "12.1 h"]
