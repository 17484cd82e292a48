"""Every schedule against a table worked by hand."""

import math

import pytest

from optim import SCHEDULES, build_schedule
from optim.schedules import DecayType

HALF = math.sqrt(0.5)

# Worked by hand: name, total_steps, hyperparameters, the factors of all updates, the limit.
TABLES = [
    ("constant", 4, {"warmup_steps": 2}, [0.5, 1, 1, 1], 1),
    (
        "step",
        8,
        {"warmup_steps": 2, "step_size": 2, "gamma": 0.5},
        [0.5, 1, 1, 1, 0.5, 0.5, 0.25, 0.25],
        0.25,
    ),
    (
        "multistep",
        8,
        {"warmup_steps": 2, "milestones": (4, 0.75), "gamma": 0.1},
        [0.5, 1, 1, 1, 0.1, 0.1, 0.01, 0.01],
        0.01,
    ),
    (
        "linear",
        8,
        {"warmup_steps": 2, "min_lr_ratio": 0.4},
        [0.5, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5],
        0.4,
    ),
    ("linear_to_zero", 5, {"warmup_steps": 1}, [1, 1, 0.75, 0.5, 0.25], 0),
    (
        "exponential",
        6,
        {"warmup_steps": 2, "min_lr_ratio": 1 / 16},
        [0.5, 1, 1, 0.5, 0.25, 0.125],
        0.0625,
    ),
    (
        "cosine",
        8,
        {"warmup_steps": 4, "min_lr_ratio": 0.0},
        [0.25, 0.5, 0.75, 1, 1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2],
        0,
    ),
    (
        "polynomial",
        6,
        {"warmup_steps": 2, "power": 2, "min_lr_ratio": 0},
        [0.5, 1, 1, 9 / 16, 1 / 4, 1 / 16],
        0,
    ),
    ("rex", 5, {"warmup_steps": 1, "min_lr_ratio": 0.0}, [1, 1, 6 / 7, 2 / 3, 2 / 5], 0),
    (
        "one_cycle",
        8,
        {"pct_start": 0.5, "div_factor": 4, "final_div_factor": 1, "anneal_strategy": "linear"},
        [0.25, 0.5, 0.75, 1, 0.8125, 0.625, 0.4375, 0.25],
        0.25,
    ),
    (
        "cosine_warm_restarts",
        7,
        {"warmup_steps": 0},
        [1, 1, 0.5, 1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2],
        0,
    ),
    (
        "cosine_warm_restarts",
        6,
        {"warmup_steps": 2, "cycles": 2, "cycle_mult": 1, "min_lr_ratio": 0.5},
        [0.5, 1, 1, 0.75, 1, 0.75],
        0.5,
    ),
    (
        "cosine_warm_restarts",  # the run ends half-way through its last cycle
        4,
        {"warmup_steps": 0, "cycles": 2, "first_cycle_steps": 2, "min_lr_ratio": 0},
        [1, 0.5, 1, (1 + HALF) / 2],
        0.5,
    ),
    (
        "cyclic",
        8,
        {"cycles": 2, "min_lr_ratio": 0.5},
        [0.5, 0.75, 1, 0.75, 0.5, 0.75, 1, 0.75],
        0.5,
    ),
    (
        "cyclic",
        8,
        {"cycles": 2, "min_lr_ratio": 0.5, "mode": "triangular2"},
        [0.5, 0.75, 1, 0.75, 0.5, 0.625, 0.75, 0.625],
        0.5,
    ),
    (
        "cyclic",
        4,
        {"cycles": 1, "min_lr_ratio": 0, "mode": "exp_range", "gamma": 0.5},
        [0, 0.25, 0.25, 0.0625],
        0,
    ),
    (
        "wsd",
        8,
        {"warmup_steps": 2, "decay_steps": 4},
        [0.5, 1, 1, 1, 1, 0.5, 1 - HALF, 1 - math.sqrt(0.75)],
        0,
    ),
    (
        "wsd",
        6,
        {"warmup_steps": 2, "decay_steps": 4, "decay_type": "linear", "min_lr_ratio": 0.2},
        [0.5, 1, 1, 0.8, 0.6, 0.4],
        0.2,
    ),
    (
        "wsd",
        4,
        {"warmup_steps": 0, "decay_steps": 4, "decay_type": "cosine"},
        [1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2],
        0,
    ),
    (
        "wsd",
        4,
        {"warmup_steps": 0, "decay_steps": 4, "decay_type": "mirror_cosine"},
        [1, 1 - HALF / 2, 0.5, HALF / 2],
        0,
    ),
    (
        "wsd",
        4,
        {"warmup_steps": 0, "decay_steps": 4, "decay_type": "square"},
        [1, 15 / 16, 3 / 4, 7 / 16],
        0,
    ),
    (
        "wsd",
        5,
        {
            "warmup_steps": 1,
            "decay_steps": 4,
            "decay_type": "exponential",
            "min_lr_ratio": 1 / 16,
        },
        [1, 1, 0.5, 0.25, 0.125],
        0.0625,
    ),
    (
        "wsd",
        6,
        {"warmup_steps": 2, "decay_steps": 4, "decay_type": "power", "power": 1.5},
        [0.5, 1, 1, 3 * math.sqrt(3) / 8, HALF / 2, 1 / 8],
        0,
    ),
    (
        "wsd",
        4,
        {
            "warmup_steps": 0,
            "decay_steps": 4,
            "decay_type": "1-power",
            "power": 0.5,
            "min_lr_ratio": 0.2,
        },
        [1, 0.6, 1 - 0.8 * HALF, 1 - 0.4 * math.sqrt(3)],
        0.2,
    ),
    (
        "power_cool",  # y = 0, 1/4, 1/2 in the run, 3/4 at its end
        4,
        {"warmup_steps": 1, "decay_steps": 3, "beyond_steps": 1, "power": 2},
        [1, 1, 9 / 16, 1 / 4],
        1 / 16,
    ),
    (
        "power_cool",
        4,
        {
            "warmup_steps": 2,
            "decay_steps": 0.5,
            "beyond_steps": 0,
            "power": 1.5,
            "min_lr_ratio": 0.5,
        },
        [0.5, 1, 1, 0.5 + HALF / 4],
        0.5,
    ),
    (
        "fast_slow",
        8,
        {"warmup_steps": 1, "decay_steps": 6, "slow_steps": 2, "slow_lr_ratio": 0.2, "power": 0.5},
        [1, 1, 1, 0.6, 1 - 0.8 * HALF, 1 - 0.4 * math.sqrt(3), 0.2, 0.1],
        0,
    ),
    (
        "inverse_sqrt",
        8,
        {"warmup_steps": 2},
        [0.5, 1, *((2 / n) ** 0.5 for n in range(3, 9))],
        2**0.5 / 3,
    ),
    (
        "inverse_sqrt",
        8,
        {"warmup_steps": 1, "decay_steps": 4},
        [1, HALF, 3**-0.5, 0.5, 5**-0.5, 0.75 * 5**-0.5, 0.5 * 5**-0.5, 0.25 * 5**-0.5],
        0,
    ),
    ("noam", 4, {"warmup_steps": 2}, [0.5, 1, (2 / 3) ** 0.5, HALF], 0.4**0.5),
    (
        "power",
        6,
        {"warmup_steps": 1, "hold_steps": 1, "exponent": 1, "decay_steps": 2},
        [1, 1, 2 / 3, 1 / 2, 2 / 5, 1 / 5],
        0,
    ),
    (
        "cosine_inf",
        8,
        {"warmup_steps": 2, "hold_steps": 2, "min_lr_ratio": 0},
        [0.5, 1, 1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2, 0, 0],
        0,
    ),
    (
        "piecewise",
        8,
        {"warmup_steps": 0, "knots": [[0, 0.5], [0.5, 1], [1, 0]]},
        [0.5, 0.625, 0.75, 0.875, 1, 0.75, 0.5, 0.25],
        0,
    ),
    (
        "piecewise",  # level before the first knot and after the last
        8,
        {"warmup_steps": 2, "knots": [[0.25, 1], [0.75, 0]], "interpolation": "cosine"},
        [0.5, 1, 1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2, 0, 0],
        0,
    ),
    (
        "piecewise",
        4,
        {"warmup_steps": 0, "knots": [[0, 1], [0.5, 0.3], [1, 0]], "interpolation": "constant"},
        [1, 1, 0.3, 0.3],
        0.3,
    ),
]


@pytest.mark.parametrize(("name", "total_steps", "hyperparameters", "table", "limit"), TABLES)
def test_factors_are_those_worked_by_hand(name, total_steps, hyperparameters, table, limit):
    schedule = build_schedule(name, total_steps, **hyperparameters)
    assert list(schedule.factors) == pytest.approx([*table, limit], abs=1e-15)


def test_every_schedule_has_a_table():
    assert {name for name, *_ in TABLES} == set(SCHEDULES)
    shapes = {h["decay_type"] for _, _, h, *_ in TABLES if "decay_type" in h}
    assert shapes == set(DecayType.__args__) - {"1-sqrt"}, "all but the default"
