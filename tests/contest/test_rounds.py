"""Where further trials lie: beyond the edge, or between the best setting and its neighbours."""

import math

import pytest

from contest.rounds import grid_edges, inward, outward, range_edges, strip, widened
from contest.schema import Range


def tried(losses, key="lr"):
    """{value: loss} of one key, as the rounds see it, and the best setting."""
    pairs = [({key: value}, loss) for value, loss in losses.items()]
    return pairs, min(pairs, key=lambda pair: pair[1])[0]


@pytest.mark.parametrize(
    ("losses", "beyond"),
    [
        ({1e-3: 1, 2e-3: 2, 4e-3: 3}, 5e-4),
        ({1e-3: 3, 2e-3: 2, 4e-3: 1}, 8e-3),
        ({1e-3: 3, 3e-3: 2, 4e-3: 1}, 4e-3 * 4 / 3),  # the factor of the edge's own side
        ({0.0: 3, 0.1: 2, 0.2: 1}, 0.3),  # no factor where there is a zero
        ({100: 3, 200: 2, 400: 1}, 800),
        ({1e-3: 3, 2e-3: 1, 4e-3: 2}, None),
        ({1e-3: math.inf, 2e-3: 1, 4e-3: 2}, None),  # where one diverged, something was tried
    ],
)
def test_a_trial_beyond_an_edge_keeps_the_grids_own_factor(losses, beyond):
    found = [setting["lr"] for setting in outward(*tried(losses), ["lr"])]
    assert found == ([] if beyond is None else [pytest.approx(beyond, rel=1e-5)])


def test_whole_numbers_stay_whole():
    (setting,) = outward(*tried({100: 3, 200: 2, 400: 1}), ["lr"])
    assert type(setting["lr"]) is int
    assert next(inward(*tried({100: 3, 200: 1, 400: 2}), ["lr"], 1)) == {"lr": 283}


def test_a_trial_inward_lies_on_the_side_of_the_better_neighbour():
    left = [s["lr"] for s in inward(*tried({1e-3: 2, 2e-3: 1, 4e-3: 3}), ["lr"], 1)]
    assert left[:2] == [pytest.approx(math.sqrt(2) * 1e-3, rel=1e-5),
                        pytest.approx(math.sqrt(8) * 1e-3, rel=1e-5)]  # fmt: skip
    right = [s["lr"] for s in inward(*tried({1e-3: math.inf, 2e-3: 1, 4e-3: 3}), ["lr"], 1)]
    assert right[:2] == left[1::-1]


def test_rounds_take_the_keys_in_turn():
    values = [({"lr": lr, "wd": wd}, abs(lr - 2) + abs(wd - 0.2)) for lr in (1, 2.0, 4)
              for wd in (0.1, 0.2, 0.4)]  # fmt: skip
    best = {"lr": 2.0, "wd": 0.2}
    first = next(inward(values, best, ["lr", "wd"], 1))
    second = next(inward(values, best, ["lr", "wd"], 2))
    assert first == {"lr": pytest.approx(math.sqrt(2), rel=1e-5), "wd": 0.2}
    assert second == {"lr": 2.0, "wd": pytest.approx(math.sqrt(0.02), rel=1e-5)}


def test_two_edges_are_two_places_and_one_that_was_passed_is_none():
    grid = [({"lr": lr, "wd": wd}, -lr - wd) for lr in (1, 2) for wd in (3, 6)]
    best = {"lr": 2, "wd": 6}
    assert [*outward(grid, best, ["lr", "wd"])] == [{"lr": 4, "wd": 6}, {"lr": 2, "wd": 12}]
    assert grid_edges([*grid, ({"lr": 4, "wd": 6}, 0.0)], best, ["lr", "wd"]) == ["wd"]


def test_edge_of_a_range_is_its_outer_twentieth_on_its_own_scale():
    ranges = {"lr": Range(low=1e-4, high=1e-2, log=True)}
    found = [
        bool(range_edges([({"lr": lr}, 1.0)], {"lr": lr}, ranges, ranges))
        for lr in (1.2e-4, 1.3e-4, 7.9e-3, 8e-3)
    ]
    assert found == [True, False, False, True]


def test_a_best_value_beyond_the_first_range_is_an_edge_until_more_was_tried_behind_it():
    first = {"lr": Range(low=1e-4, high=1e-2, log=True)}
    wide = {"lr": Range(low=1e-4, high=1e-1, log=True)}
    best, middle = {"lr": 2e-2}, ({"lr": 1e-3}, 2.0)
    assert range_edges([middle, (best, 1.0)], best, wide, first) == ["lr"]
    behind = [middle, (best, 1.0), ({"lr": 5e-2}, 3.0)]
    assert range_edges(behind, best, wide, first) == []


@pytest.mark.parametrize(
    ("r", "value", "low", "high"),
    [
        (Range(low=1e-4, high=1e-2, log=True), 9e-3, 1e-2, 10**-1.5),
        (Range(low=1e-4, high=1e-2, log=True), 1.1e-4, 10**-4.5, 1e-4),
        (Range(low=0.0, high=0.4), 0.39, 0.4, 0.5),
        (Range(low=4, high=6), 6, 7, 8),  # at least two new whole numbers
        (Range(low=4, high=6), 4, 2, 3),
        (Range(low=100, high=900), 890, 901, 1100),
    ],
)
def test_a_range_is_widened_by_a_quarter_on_its_own_scale(r, value, low, high):
    beyond = strip(r, value)
    assert (beyond.low, beyond.high) == (
        pytest.approx(low, rel=1e-5),
        pytest.approx(high, rel=1e-5),
    )
    assert type(beyond.high) is type(r.high)
    wide = widened(r, beyond)
    assert (wide.low, wide.high) == (min(r.low, beyond.low), max(r.high, beyond.high))
