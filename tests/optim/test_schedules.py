"""Schedules: against torch's own, invariants, joins, and the defects of a 2024 study."""

import itertools
import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_schedules

from configs.validation import ConfigError
from optim import SCHEDULES, build_schedule, resolve_schedule
from optim.schedules import DecayType

SHAPES = DecayType.__args__


def factors(name, total_steps, **hyperparameters):
    return list(build_schedule(name, total_steps, **hyperparameters).factors[:-1])


# ---------------------------------------------------------------- torch's own


def of_torch(scheduler, total_steps):
    """Factors of a torch scheduler, built by `scheduler(optimizer)` on a base lr of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    built, values = scheduler(optimizer), []
    for _ in range(total_steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        built.step()
    return values


def warm_cosine(optimizer):
    warm = torch_schedules.LinearLR(optimizer, 1 / 10, 1.0, total_iters=9)
    cosine = torch_schedules.CosineAnnealingLR(optimizer, 90, eta_min=0.1)
    return torch_schedules.SequentialLR(optimizer, [warm, cosine], milestones=[10])


def of_cyclic(mode, gamma=1.0):
    return lambda o: torch_schedules.CyclicLR(
        o, 0.1, 1.0, step_size_up=10, mode=mode, gamma=gamma, cycle_momentum=False
    )


def of_one_cycle(**hyperparameters):
    return lambda o: torch_schedules.OneCycleLR(
        o, 1.0, total_steps=100, cycle_momentum=False, **hyperparameters
    )


def noam_of_the_paper(optimizer, d_model=512, warmup=20):
    def lr(t):
        return d_model**-0.5 * min((t + 1) ** -0.5, (t + 1) * warmup**-1.5)

    peak = (d_model * warmup) ** -0.5
    return torch_schedules.LambdaLR(optimizer, lambda t: lr(t) / peak)


NO_WARMUP = {"warmup_steps": 0}
EQUIVALENTS = [
    (
        "step",
        {**NO_WARMUP, "step_size": 7, "gamma": 0.9},
        lambda o: torch_schedules.StepLR(o, 7, 0.9),
    ),
    (
        "multistep",
        {**NO_WARMUP, "milestones": (15, 30, 45), "gamma": 0.5},
        lambda o: torch_schedules.MultiStepLR(o, [15, 30, 45], 0.5),
    ),
    (
        "linear",
        {**NO_WARMUP, "min_lr_ratio": 0.1},
        lambda o: torch_schedules.LinearLR(o, 1.0, 0.1, total_iters=100),
    ),
    (
        "exponential",
        {**NO_WARMUP, "min_lr_ratio": 0.1},
        lambda o: torch_schedules.ExponentialLR(o, 0.1 ** (1 / 100)),
    ),
    (
        "cosine",
        {**NO_WARMUP, "min_lr_ratio": 0.1},
        lambda o: torch_schedules.CosineAnnealingLR(o, 100, eta_min=0.1),
    ),
    ("cosine", {"warmup_steps": 10, "min_lr_ratio": 0.1}, warm_cosine),
    (
        "polynomial",
        {**NO_WARMUP, "power": 2.0, "min_lr_ratio": 0.0},
        lambda o: torch_schedules.PolynomialLR(o, 100, power=2.0),
    ),
    ("one_cycle", {}, of_one_cycle()),
    (
        "one_cycle",
        {"pct_start": 0.25, "div_factor": 10, "final_div_factor": 1, "anneal_strategy": "linear"},
        of_one_cycle(pct_start=0.25, div_factor=10, final_div_factor=1, anneal_strategy="linear"),
    ),
    (
        "cosine_warm_restarts",
        {**NO_WARMUP, "first_cycle_steps": 10, "cycles": 4, "min_lr_ratio": 0.1},
        lambda o: torch_schedules.CosineAnnealingWarmRestarts(o, 10, T_mult=2, eta_min=0.1),
    ),
    (
        "cosine_warm_restarts",
        {**NO_WARMUP, "cycles": 5, "cycle_mult": 1},
        lambda o: torch_schedules.CosineAnnealingWarmRestarts(o, 20),
    ),
    ("cyclic", {"cycles": 5}, of_cyclic("triangular")),
    ("cyclic", {"cycles": 5, "mode": "triangular2"}, of_cyclic("triangular2")),
    ("cyclic", {"cycles": 5, "mode": "exp_range", "gamma": 0.97}, of_cyclic("exp_range", 0.97)),
    ("noam", {"warmup_steps": 20}, noam_of_the_paper),
    ("constant", NO_WARMUP, lambda o: torch_schedules.ConstantLR(o, factor=1.0)),
]


@pytest.mark.parametrize(("name", "hyperparameters", "equivalent"), EQUIVALENTS)
def test_equals_torch(name, hyperparameters, equivalent):
    ours = factors(name, 100, **hyperparameters)
    assert ours == pytest.approx(of_torch(equivalent, 100), rel=0, abs=1e-12)


def test_noam_docstring_gives_the_papers_peak():
    peak = (512 * 4000) ** -0.5
    assert f"{peak:.2e}" == "6.99e-04"
    assert "6.99e-4" in SCHEDULES["noam"].__doc__


# ---------------------------------------------------------------- invariants


@pytest.mark.parametrize("total_steps", [1, 2, 3, 7, 50, 1000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_defaults_give_finite_factors_everywhere(name, total_steps):
    schedule = build_schedule(name, total_steps)
    values = [schedule(t) for t in range(-5, 10 * total_steps)]
    assert all(type(value) is float and 0 <= value <= 1 for value in values)
    assert set(values[:5]) == {schedule(0)}
    assert set(values[5 + total_steps :]) <= {schedule(total_steps)}
    assert all(value > 0 for value in schedule.factors[:-1]), "an update is wasted at lr 0"


LIMITS = {  # at and past the end, with default hyperparameters and T = 1000
    "constant": 1,
    "step": 0.1,
    "multistep": 0.1,
    "linear": 0,
    "linear_to_zero": 0,
    "exponential": 0.1,
    "cosine": 0.1,
    "polynomial": 0.1,
    "rex": 0,
    "one_cycle": 4e-6,
    "cosine_warm_restarts": 0,  # and not 1, where another cycle would begin
    "cyclic": 0.1,
    "wsd": 0,
    "power_cool": (80 / 880) ** 1.2,
    "fast_slow": 0,
    "inverse_sqrt": math.sqrt(38 / 1001),
    "noam": math.sqrt(38 / 1001),
    "power": 0,
    "cosine_inf": 0.1,
    "piecewise": 0,
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_past_the_end_is_the_left_limit(name):
    schedule = build_schedule(name, 1000)
    assert schedule(1000) == pytest.approx(LIMITS[name], abs=1e-15)
    assert schedule(1000) == schedule(1001) == schedule(10**9)


@pytest.mark.parametrize("total_steps", [8, 1000, 19_072])
@pytest.mark.parametrize("name", SCHEDULES)
def test_peak_is_one_and_where_the_rise_ends(name, total_steps):
    schedule = build_schedule(name, total_steps)
    peak = schedule.factors.index(max(schedule.factors))
    warmup = math.ceil(resolve_schedule(name, {}).get("warmup_steps", 0) * total_steps)
    rise = {"cyclic": total_steps / 8, "one_cycle": 0.3 * total_steps - 1}
    assert peak == pytest.approx(rise.get(name, max(warmup - 1, 0)), abs=1)
    # One cycle peaks between two updates unless pct_start * T is whole.
    assert schedule.peak_factor == pytest.approx(1, abs=1e-12 if name != "one_cycle" else 0.1)


FALLING = set(SCHEDULES) - {"one_cycle", "cosine_warm_restarts", "cyclic"}


@pytest.mark.parametrize("name", sorted(FALLING))
@pytest.mark.parametrize("total_steps", [13, 1000])
def test_never_rises_after_the_warmup(name, total_steps):
    schedule = build_schedule(name, total_steps)
    falling = schedule.factors[schedule.factors.index(1.0) :]
    assert all(a >= b for a, b in itertools.pairwise(falling))


SLOPES = {  # largest |df/dx| after a warm-up of 100 of 1000 steps; x is the part of the rest
    "constant": 0,
    "linear": 1,
    "linear_to_zero": 1,
    "exponential": math.log(10),
    "cosine": 0.9 * math.pi / 2,
    "polynomial": 2 * 0.9,
    "rex": 2,
    "cosine_inf": 0.9 * math.pi / 2 * 9 / 7,
    "piecewise": 9 / 2,
    "wsd": 9 / 2,  # linear; that of 1-sqrt is unbounded
    "power_cool": 1.2 * 900 / 880,
}


@pytest.mark.parametrize("name", SLOPES)
def test_continuous(name):
    extra = {"decay_type": "linear"} if name == "wsd" else {}
    values = factors(name, 1000, warmup_steps=100, **extra)
    jumps = [abs(b - a) for a, b in itertools.pairwise(values)]
    assert max(jumps[:99]) == pytest.approx(1 / 100)
    assert max(jumps[99:]) <= SLOPES[name] / 900 + 1e-12


def test_first_step_of_the_sqrt_decay():
    values = factors("wsd", 1000)
    assert values[800] - values[801] == pytest.approx(1 / math.sqrt(200))


@pytest.mark.parametrize("part", [0.1, 0.25, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("name", SCHEDULES)
def test_defaults_have_the_same_shape_at_any_length(name, part):
    short, long = build_schedule(name, 1000), build_schedule(name, 4000)
    assert short(int(part * 1000)) == pytest.approx(long(int(part * 4000)), abs=10 / 1000)


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"constant"}))
def test_is_not_constant(name):
    assert len({round(value, 12) for value in factors(name, 100)[10:]}) > 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_has_no_state(name):
    one, two = build_schedule(name, 97), build_schedule(name, 97)
    assert [one(t) for t in reversed(range(97))][::-1] == [two(t) for t in range(97)]


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    total_steps=st.integers(1, 60),
    warmup=st.floats(0.001, 0.7),
    floor=st.floats(0.001, 1),
)
def test_any_warmup_and_floor_stay_within_bounds(name, total_steps, warmup, floor):
    known = resolve_schedule(name, {})
    given_values = {"warmup_steps": warmup, "min_lr_ratio": floor}
    hyperparameters = {key: value for key, value in given_values.items() if key in known}
    fit = {  # what the longest warm-up leaves room for
        "multistep": {"milestones": (0.8, 0.9)},
        "power_cool": {"decay_steps": 0.3},
        "fast_slow": {"decay_steps": 0.3, "slow_steps": 0.1},
    }
    hyperparameters |= fit.get(name, {})
    schedule = build_schedule(name, total_steps, **hyperparameters)
    assert all(floor - 1e-12 <= f for f in schedule.factors[math.ceil(warmup * total_steps) :]) or (
        "min_lr_ratio" not in known
    )


@settings(max_examples=60, deadline=None)
@given(warmup=st.floats(0, 0.999), total_steps=st.integers(1, 500))
def test_complementary_fractions_always_fit(warmup, total_steps):
    if warmup < 1 - warmup < 1:
        build_schedule("wsd", total_steps, warmup_steps=warmup, decay_steps=1 - warmup)


@pytest.mark.parametrize("warmup", [0, 1, 100])
@pytest.mark.parametrize("name", ["linear", "cosine", "wsd", "power", "cosine_warm_restarts"])
def test_warmup_may_be_absent_or_the_whole_run(name, warmup):
    extra = {"decay_steps": 1e-3} if name in ("wsd", "power") else {}
    schedule = build_schedule(name, 100, warmup_steps=warmup, **extra)
    assert schedule(0) == (1 / warmup if warmup else 1)
    assert schedule(max(warmup - 1, 0)) == 1


@pytest.mark.parametrize("floor", [i / 97 for i in range(98)])
def test_rounding_never_exceeds_one(floor):
    for name in ("linear", "cosine", "polynomial", "rex", "cyclic", "cosine_inf"):
        assert max(factors(name, 64, min_lr_ratio=floor)) <= 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_long_run_is_evaluated_at_once(name):
    seconds = []
    for _ in range(3):
        began = time.process_time()
        build_schedule(name, 19_073)
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.2  # 0.1 on an idle core


# ---------------------------------------------------------------- steps and fractions


def test_a_fraction_is_placed_at_the_first_step_at_or_after_it():
    assert factors("constant", 100, warmup_steps=0.07)[6:8] == [1, 1]  # 0.07 * 100 > 7 in floats
    assert factors("constant", 100, warmup_steps=0.07)[5] == 6 / 7
    assert factors("constant", 19_073, warmup_steps=0.03748)[713:715] == [714 / 715, 1]


def test_an_int_is_steps_and_a_float_a_fraction():
    assert factors("constant", 100, warmup_steps=1) == [1] * 100
    assert factors("constant", 100, warmup_steps=0) == factors("constant", 100, warmup_steps=0.0)
    for wrong in (1.0, 10.0, -0.1):
        with pytest.raises(ConfigError, match="a float is a fraction of the run, from 0 to below"):
            build_schedule("constant", 100, warmup_steps=wrong)


# ---------------------------------------------------------------- joins


def same(one, two, total_steps=100):
    """Whether two (name, hyperparameters) give the same factors, limit included."""
    a, b = (build_schedule(n, total_steps, **h).factors for n, h in (one, two))
    assert a == pytest.approx(b, rel=0, abs=1e-14)


def test_wsd_is_at_its_peak_where_the_decay_begins():
    for shape in SHAPES:
        power = {"power": 1.2} if "power" in shape else {}
        schedule = build_schedule(
            "wsd", 100, decay_steps=30, decay_type=shape, min_lr_ratio=0.1, **power
        )
        assert schedule(70) == 1 > schedule(71)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("polynomial", {"power": 1.0}), ("linear", {"min_lr_ratio": 0.1})),
        (("linear_to_zero", {}), ("linear", {})),
        (
            ("wsd", {"warmup_steps": 10, "decay_steps": 90, "decay_type": "linear"}),
            ("linear", {"warmup_steps": 10}),
        ),
        (
            ("wsd", {"warmup_steps": 10, "decay_steps": 90, "decay_type": "cosine"}),
            ("cosine", {"warmup_steps": 10, "min_lr_ratio": 0.0}),
        ),
        (("cosine_inf", {"hold_steps": 0}), ("cosine", {})),
        (("wsd", {"decay_type": "1-power", "power": 0.5}), ("wsd", {})),
        (("wsd", {"decay_type": "1-power", "power": 2.0}), ("wsd", {"decay_type": "square"})),
        (
            ("wsd", {"decay_type": "power", "power": 1.0, "min_lr_ratio": 0.1}),
            ("wsd", {"decay_type": "linear", "min_lr_ratio": 0.1}),
        ),
        (
            ("power_cool", {"decay_steps": 0.96, "beyond_steps": 0, "power": 2.0}),
            ("polynomial", {"min_lr_ratio": 0.0}),
        ),
        (
            ("power_cool", {"decay_steps": 0.3, "beyond_steps": 0, "min_lr_ratio": 0.2}),
            (
                "wsd",
                {"decay_steps": 0.3, "decay_type": "power", "power": 1.2, "min_lr_ratio": 0.2},
            ),
        ),
        (
            ("fast_slow", {"decay_steps": 0.5, "slow_steps": 0.5, "slow_lr_ratio": 1.0}),
            ("wsd", {"decay_steps": 0.5, "decay_type": "linear"}),
        ),
        (("cosine_warm_restarts", {"cycles": 1}), ("cosine", {"min_lr_ratio": 0.0})),
        (
            ("multistep", {"milestones": tuple(range(20, 100, 20)), "gamma": 0.5, **NO_WARMUP}),
            ("step", {"step_size": 20, "gamma": 0.5, **NO_WARMUP}),
        ),
        (("noam", {"warmup_steps": 9}), ("inverse_sqrt", {"warmup_steps": 9})),
        (("piecewise", {}), ("wsd", {"decay_type": "linear"})),
        (
            ("power", {"hold_steps": 0.91, "decay_steps": 0.08}),
            ("wsd", {"decay_steps": 0.08, "decay_type": "linear"}),
        ),
    ],
)
def test_joins(one, two):
    same(one, two)


def test_mirror_and_cosine_average_to_linear():
    shapes = ("mirror_cosine", "cosine", "linear")
    mirror, cosine, linear = (factors("wsd", 100, decay_type=shape) for shape in shapes)
    assert [a + b for a, b in zip(mirror, cosine, strict=True)] == pytest.approx(
        [2 * c for c in linear], abs=1e-14
    )


@pytest.mark.parametrize(
    ("name", "hyperparameters", "expected"),
    [
        ("linear", {}, 0.0111),
        ("cosine", {}, 0.1003),
        ("polynomial", {}, 0.1001),
        ("exponential", {}, 0.1026),
        ("rex", {}, 0.0220),
        ("wsd", {"decay_type": "linear"}, 0.050),
        ("wsd", {}, 0.0253),
        ("wsd", {"decay_type": "cosine"}, 0.0062),
        ("wsd", {"decay_type": "mirror_cosine"}, 0.0938),
        ("cosine_warm_restarts", {}, 0.0009),
        ("one_cycle", {}, 4e-6),
    ],
)
def test_factor_of_the_last_update(name, hyperparameters, expected):
    warmup = {} if name == "one_cycle" else {"warmup_steps": 10}
    schedule = build_schedule(name, 100, **warmup, **hyperparameters)
    assert schedule.last_factor == pytest.approx(expected, abs=6e-5 if expected > 1e-5 else 1e-9)


def test_mean_and_last_factor_are_over_the_updates():
    schedule = build_schedule("linear", 4, warmup_steps=0)
    assert schedule.factors == (1, 0.75, 0.5, 0.25, 0)
    assert (schedule.mean_factor, schedule.last_factor, schedule.total_steps) == (0.625, 0.25, 4)


# ---------------------------------------------------------------- entries of track 3


def test_power_cool_is_entry_46():
    """min(lr, c (2900 - t) ** 1.2) up to step 2,690, with c such that the decay begins at 514."""
    ours = factors(
        "power_cool", 2690, warmup_steps=0, decay_steps=2176, beyond_steps=210, power=1.2
    )
    c = 2386**-1.2
    assert ours == pytest.approx([min(1, c * (2900 - t) ** 1.2) for t in range(2690)], abs=1e-12)


def test_power_with_a_floor_is_entry_25():
    ours = factors(
        "power_cool",
        3040,
        warmup_steps=0,
        decay_steps=3040,
        beyond_steps=85,
        power=1.5,
        min_lr_ratio=0.017,
    )
    theirs = [0.017 + 0.983 * (1 - t / 3125) ** 1.5 for t in range(3040)]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_fast_slow_is_pull_request_351():
    """Its own text gives the rate of an update t in four parts."""

    def theirs(t):
        if t < 200:
            return min(1, (t + 1) / 100)
        if t < 1750:
            return 1 + (0.2 - 1) * ((t - 200) / 1550) ** 0.6
        return 0.2 * (1 - (t - 1750) / 1375)

    assert factors("fast_slow", 3125, warmup_steps=100) == pytest.approx(
        [theirs(t) for t in range(3125)], abs=1e-12
    )


# ---------------------------------------------------------------- defects of a 2024 study of ten


def test_restarts_use_the_multiplier():
    values = factors("cosine_warm_restarts", 150, warmup_steps=0, cycles=4)
    restarts = [t for t in range(1, 150) if values[t] > values[t - 1]]
    assert restarts == [10, 30, 70] == [10 * (2**k - 1) for k in (1, 2, 3)]


def test_restarts_are_found_where_rounding_could_hide_them():
    for cycles in range(2, 12):
        for length in (3, 7, 10):
            values = factors(
                "cosine_warm_restarts", cycles * length, warmup_steps=0, cycles=cycles, cycle_mult=1
            )
            assert [t for t, f in enumerate(values) if f == 1] == list(
                range(0, cycles * length, length)
            )


@pytest.mark.parametrize("name", ["linear", "polynomial", "one_cycle"])
def test_past_the_end_neither_negative_nor_rising_nor_complex(name):
    extra = {"power": 0.5} if name == "polynomial" else {}
    schedule = build_schedule(name, 50, **extra)
    later = [schedule(t) for t in (50, 51, 100, 150)]
    assert len(set(later)) == 1
    assert 0 <= later[0] <= schedule.last_factor


def test_cyclic_ends_low():
    schedule = build_schedule("cyclic", 50)
    assert schedule.last_factor < 0.3
    assert schedule(50) == pytest.approx(0.1)


def test_a_staircase_of_one_stair_is_an_error():
    with pytest.raises(ConfigError, match=r"step_size = 50 is not shorter than the 48 steps after"):
        build_schedule("step", 50, step_size=50)


def test_exponential_ends_at_its_floor_at_any_length():
    for total_steps in (50, 500, 5000):
        assert build_schedule("exponential", total_steps)(total_steps) == pytest.approx(0.1)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("cosin", {}, r"unknown schedule.name = 'cosin'; did you mean 'cosine'\?"),
        ("cosine", {"min_lr": 0.1}, r"unknown key 'schedule.min_lr'; did you mean 'min_lr_ratio'"),
        ("cosine", {"min_lr_ratio": 2}, r"schedule.min_lr_ratio = 2: should be less than or equal"),
        ("cosine", {"min_lr_ratio": True}, r"schedule.min_lr_ratio = True: should be a valid num"),
        ("cosine", {"min_lr_ratio": "0.1"}, r"schedule.min_lr_ratio = '0.1': should be a valid"),
        ("cosine", {"min_lr_ratio": float("nan")}, r"min_lr_ratio = nan: should be a finite"),
        ("cosine", {"warmup_steps": 101}, r"warmup_steps = 101 is longer than the run of 100 st"),
        ("cosine", {"warmup_steps": True}, r"warmup_steps = True: should be a whole number"),
        ("cosine", {"warmup_steps": -1}, r"warmup_steps = -1: a number of steps should be 0 or"),
        ("noam", {"warmup_steps": 0}, r"warmup_steps = 0: should be at least 1 step"),
        ("exponential", {"min_lr_ratio": 0}, r"min_lr_ratio = 0: should be greater than 0"),
        ("step", {"gamma": 1.5}, r"schedule.gamma = 1.5: should be less than or equal to 1"),
        (
            "multistep",
            {"milestones": [30, 20]},
            r"milestones = \[30, 20\]: should increase, but 20",
        ),
        ("multistep", {"milestones": [100]}, r"each should lie between the end of the warm-up, 4,"),
        ("multistep", {"milestones": [1]}, r"each should lie between the end of the warm-up, 4,"),
        ("polynomial", {"power": 0}, r"schedule.power = 0: should be greater than 0"),
        ("one_cycle", {"pct_start": 1.0}, r"schedule.pct_start = 1.0: should be less than 1"),
        ("one_cycle", {"div_factor": 0.5}, r"div_factor = 0.5: should be greater than or equal"),
        ("one_cycle", {"anneal_strategy": "cosine"}, r"'cosine': should be 'cos' or 'linear'"),
        ("wsd", {"decay_steps": 0}, r"decay_steps = 0: should be at least 1 step, or a fraction"),
        (
            "wsd",
            {"decay_steps": 99},
            r"decay_steps = 99 leaves 1 of 100 steps, fewer than the warm",
        ),
        ("wsd", {"decay_steps": 300}, r"decay_steps = 300 leaves 0 of 100 steps, fewer than"),
        ("wsd", {"decay_type": "sqrt"}, r"schedule.decay_type = 'sqrt': should be 'linear', '1-sq"),
        ("wsd", {"decay_type": "exponential"}, r"min_lr_ratio = 0.0: an exponential decay needs"),
        (
            "wsd",
            {"decay_type": "power"},
            r"power is not given with schedule.decay_type = 'power'; ",
        ),
        (
            "wsd",
            {"power": 1.2},
            r"schedule.power = 1.2 with schedule.decay_type = '1-sqrt'; 'power'",
        ),
        ("wsd", {"decay_type": "1-power", "power": 0}, r"schedule.power = 0: should be greater"),
        ("power_cool", {"decay_steps": 99}, r"decay_steps = 99 leaves 1 of 100 steps, fewer than"),
        ("power_cool", {"beyond_steps": -1}, r"beyond_steps = -1: a number of steps should be 0"),
        (
            "fast_slow",
            {"decay_steps": 30},
            r"slow_steps = 0.44 is longer than schedule.decay_steps = 30, whose last part it is;",
        ),
        ("cyclic", {"cycles": 0.5}, r"schedule.cycles = 0.5: should be a whole number"),
        ("cyclic", {"gamma": 0.9}, r"gamma = 0.9 with schedule.mode = 'triangular'; mode 'exp_"),
        ("cyclic", {"mode": "exp_range"}, r"gamma = 1.0 with schedule.mode = 'exp_range'; mode"),
        (
            "cosine_warm_restarts",
            {"first_cycle_steps": 10},
            r"the last cycle lasts from step 34 to",
        ),
        ("cosine_warm_restarts", {"first_cycle_steps": 50}, r"should contain the end of the run"),
        ("cosine_warm_restarts", {"cycles": 2000}, r"cannot be evaluated with .*'cycles': 2000"),
        ("piecewise", {"knots": []}, r"knots = \[\]: should have at least one"),
        ("piecewise", {"knots": [[0.5, 1], [0.2, 0]]}, r"should increase, but 0.2 follows 0.5"),
        ("piecewise", {"knots": [[10, 1]]}, r"should be less than or equal to 1"),
    ],
)
def test_mistakes_are_named_in_one_line(name, hyperparameters, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_schedule(name, 100, **hyperparameters)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("total_steps", [0, -1, 10.0, True])
def test_total_steps_is_a_positive_integer(total_steps):
    with pytest.raises(ConfigError, match=r"total_steps = .*: should be an integer of at least 1"):
        build_schedule("cosine", total_steps)


def test_a_factor_out_of_bounds_is_caught(monkeypatch):
    def rising(step: int, total_steps: int, *, slope: float = 1.0) -> float:
        return slope * step

    monkeypatch.setitem(SCHEDULES, "rising", rising)
    with pytest.raises(ConfigError, match=r"'rising' gives factor 2.0 at step 2; it must lie in"):
        build_schedule("rising", 10)
    monkeypatch.setitem(SCHEDULES, "rising", lambda step, total_steps: math.nan)
    with pytest.raises(ConfigError, match=r"'rising' gives factor nan at step 0"):
        build_schedule("rising", 10)
