"""Speed-ups and costs of a target: closed forms, and record.metrics on the lines."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from record import metrics
from report.speedups import Speedup, cost_at, crossing, over_seeds, shown, speedups, to_target
from report.study import Study
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


def test_with_few_seeds_the_interval_is_the_range_of_seeds_and_says_so():
    study = a_study({"base": {1: 3.5, 2: 3.5, 3: 3.5}, "arm": {1: 3.0, 2: 3.2, 3: 3.4}})
    s = rows(study)["arm"].speedups["steps"]
    assert (s.low, s.high) == pytest.approx((2.1 / 2, 2.5 / 2))
    assert s.ratio == pytest.approx((2.1 * 2.3 * 2.5) ** (1 / 3) / 2)
    assert s.interval == "range of seeds"
    assert shown(s) == "1.15 x (1.05 to 1.25)"


def test_from_five_seeds_on_the_interval_is_students_on_the_logarithms():
    finals = {1: 3.0, 2: 3.2, 3: 3.4, 4: 3.1, 5: 3.3}
    study = a_study({"base": dict.fromkeys(finals, 3.5), "arm": finals})
    s = rows(study)["arm"].speedups["steps"]
    logs = np.log([(5.5 - final) / 2 for final in finals.values()])
    ends = stats.t.interval(0.95, 4, logs.mean(), stats.sem(logs))
    assert (s.low, s.high) == pytest.approx(tuple(np.exp(ends)))
    assert s.ratio == pytest.approx(math.exp(logs.mean()))
    assert s.interval == "95 %"
    assert shown(s) == f"{s.ratio:.2f} x [{s.low:.2f}, {s.high:.2f}]"


def test_interval_of_a_speedup_covers_it_in_95_of_100_studies():
    """A percentile bootstrap over five seeds covers it in 84."""
    draws = np.random.default_rng(5).normal(0.2, 0.1, (300, 5))
    found = [over_seeds({(i, i): x for i, x in enumerate(row)}) for row in draws]
    covered = np.mean([s.low <= math.exp(0.2) <= s.high for s in found])
    assert covered == pytest.approx(0.95, abs=0.026)


def test_crossed_seeds_count_by_the_smaller_number_of_levels():
    logs = {(i, j): 0.1 + 0.01 * i * j for i in range(3) for j in range(10)}
    assert over_seeds(logs).interval == "range of seeds"
    wide = over_seeds({(i, j): 0.1 + 0.01 * i * j + 0.02 * i for i in range(5) for j in range(5)})
    assert wide.interval == "95 %"
    assert wide.high - wide.low > 0.1, "25 independent pairs would give 0.03"


def test_seeds_that_do_not_reach_the_loss_are_counted():
    study = a_study({"base": {1: 3.5, 2: 3.5, 3: 3.5}, "arm": {1: 3.0, 2: 3.6, 3: 3.4}})
    s = rows(study)["arm"].speedups["steps"]
    assert (s.ratio, s.low, s.high) == (0.0, None, None)
    assert shown(s) == "not reached by 1 of 3 seeds, 1.05 to 1.25 x by the others"
    study = a_study({"base": {1: 3.5, 2: 3.5}, "arm": {1: 3.0, 2: 3.6}})
    said = rows(study)["arm"].speedups["steps"].words
    assert said == "not reached by 1 of 2 seeds, 1.25 x by the others"


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


# -------------------------------------------------------------------------- the rules one by one


def with_curve(run, steps, losses, *, seconds=None, tokens=None):
    """`run` with these evaluations, and a clock and tokens after each of its updates."""
    train = {"step": np.arange(max(steps), dtype=float)}
    if seconds is not None:
        train["time/train_seconds"] = np.array(seconds, dtype=float)
    if tokens is not None:
        train["tokens"] = np.array(tokens, dtype=float)
    val = {"step": np.array(steps, dtype=float), "val/loss": np.array(losses, dtype=float)}
    return replace(run, train=train, val=val)


def two(mine, theirs, **other):
    """A study of base and arm, one run of each seed: {seed: (steps, losses)}."""
    runs = [
        with_curve(a_run(arm, seed, losses[-1]), steps, losses, **other)
        for arm, each in (("base", theirs), ("arm", mine))
        for seed, (steps, losses) in each.items()
    ]
    return Study("c", runs, "base", None, ["base", "arm"])


def test_one_seed_has_a_ratio_without_an_interval():
    found = speedups(two({1: ([0, 4], [5, 3])}, {1: ([0, 4], [5, 4])}), "arm", "base")
    assert found == {"steps": Speedup(2.0, None, None, "2.00 x")}  # no clock, no tokens recorded


def test_axes_are_left_out_where_they_are_not_recorded():
    curves = {1: ([0, 2], [5, 3])}
    study = two(curves, curves, seconds=[1, 2])
    assert set(speedups(study, "arm", "base")) == {"steps", "seconds"}
    study = two(curves, curves, tokens=[8, 16])
    assert set(speedups(study, "arm", "base")) == {"steps", "tokens", "flops"}
    only_mine = replace(
        study, runs=[study.runs[0], replace(study.runs[1], summary={"final_val_loss": 3.0})]
    )
    assert set(speedups(only_mine, "arm", "base")) == {"steps", "tokens"}  # parameters unknown


def test_runs_without_pairs_are_compared_by_their_mean_curves_without_an_interval():
    steps = [0, 10, 20, 30]
    theirs = {1: (steps, [6, 5, 4.2, 4.0]), 2: (steps, [6, 5.2, 4.4, 4.1])}
    mine = {11: (steps, [6, 4.5, 3.95, 3.5]), 12: (steps, [6, 4.9, 4.1, 3.7])}
    found = speedups(two(mine, theirs), "arm", "base")["steps"]
    reached = np.interp(-4.05, -np.array([6, 4.7, 4.025, 3.6]), steps)
    assert found == Speedup(pytest.approx(30 / reached), None, None, f"{30 / reached:.2f} x")


def test_each_pair_has_a_target_of_its_own():
    steps = [0, 10, 20, 30]
    theirs = {1: (steps, [6, 5, 4.2, 4.0]), 2: (steps, [6, 5.2, 4.4, 4.1])}
    mine = {
        1: (steps, [6, 4.5, 3.95, 3.5]),
        2: (steps, [6, 4.9, 4.1, 3.7]),
        3: (steps, [6, 5, 4, 3]),
    }
    found = speedups(two(mine, theirs), "arm", "base")["steps"]
    first = 30 / (10 + 10 * 0.5 / 0.55)
    assert (found.low, found.high) == pytest.approx((30 / 20, first))
    assert found.ratio == pytest.approx(math.sqrt(first * 1.5)), "seed 3 has no twin"


def test_a_diverged_run_of_the_arm_is_never_faster_and_one_of_the_baseline_is_left_out():
    study = a_study({"base": {1: 3.5, 2: 3.5}, "arm": {1: 3.0, 2: 3.0}})
    lost = changed(study, "arm", 2, status="diverged")
    expected = Speedup(0.0, None, None, "not reached: a run diverged")
    assert speedups(lost, "arm", "base") == dict.fromkeys(
        ("tokens", "steps", "seconds", "flops"), expected
    )
    baseline = speedups(changed(study, "base", 2, status="diverged"), "arm", "base")["steps"]
    assert (baseline.ratio, baseline.low) == (pytest.approx(1.25), None)
    for arm in ("arm", "base"):
        nothing = changed(changed(study, arm, 1, status="stopped"), arm, 2, status="stopped")
        assert speedups(nothing, "arm", "base") == {}


def test_a_slower_arm_has_a_ratio_below_one():
    found = speedups(two({1: ([0, 8], [5, 3])}, {1: ([0, 2, 8], [5, 3, 3])}), "arm", "base")
    assert found["steps"] == Speedup(0.25, None, None, "0.25 x")


@pytest.mark.filterwarnings("error")
def test_unreached_and_undefined_speedups_have_words():
    missed = speedups(two({1: ([0, 4], [5, 4.5])}, {1: ([0, 4], [5, 4])}), "arm", "base")["steps"]
    assert missed == Speedup(0.0, None, None, "not reached")
    at_once = {1: ([0, 4], [3, 3])}  # both are there before the first update: nothing by nothing
    nothing = speedups(two(at_once, at_once), "arm", "base")["steps"]
    assert math.isnan(nothing.ratio)
    assert nothing.words == "not defined"


def test_curves_are_compared_at_the_evaluations_that_all_seeds_have():
    mine = {3: ([0, 2, 4, 8], [6, 9, 4, 3]), 4: ([0, 4, 6, 8], [6, 4, 9, 3])}
    theirs = {1: ([0, 8], [6, 4]), 2: ([0, 8], [6, 4])}
    assert speedups(two(mine, theirs), "arm", "base")["steps"].ratio == pytest.approx(2.0)
    apart = {3: ([0, 2], [6, 3]), 4: ([1, 3], [6, 3])}  # no evaluation in common, and no pairs
    assert speedups(two(apart, theirs), "arm", "base") == {}


@pytest.mark.filterwarnings("error")
def test_crossing_takes_the_first_fall_and_a_flat_piece_at_its_end():
    costs = np.array([[0.0, 10.0, 20.0, 30.0]])
    assert crossing(costs, np.array([[5.0, 3.0, 5.0, 2.0]]), np.array([3.5])).tolist() == [7.5]
    assert crossing(costs, np.array([[5.0, 3.0, 5.0, 2.0]]), np.array([3.0])).tolist() == [10.0]
    falling = np.array([[5.0, 3.0, 2.0, 1.0]])
    for target in (6.0, 5.0):  # there before the first update
        assert crossing(costs, falling, np.array([target])).tolist() == [0.0]
    # from a value that is not finite there is no straight line: the evaluation itself counts
    with np.errstate(invalid="raise"):
        at = crossing(costs, np.array([[math.nan, 3.0, 2.0, 1.0]]), np.array([3.0]))
    assert at.tolist() == [10.0]


@pytest.mark.filterwarnings("error")
def test_costs_before_an_evaluation_are_those_of_the_updates_done():
    run = with_curve(a_run("a", 1, 3.0), [0, 4], [5, 3], seconds=[1, 3, math.nan, 8],
                     tokens=[10, 20, 30, 40])  # fmt: skip
    steps = np.array([0.0, 1.0, 3.0, 4.0])
    assert cost_at(run, "steps", steps).tolist() == [0, 1, 3, 4]
    assert cost_at(run, "tokens", steps).tolist() == [0, 10, 30, 40]
    assert cost_at(run, "seconds", steps).tolist() == [0, 1, 5.5, 8]  # between 3 and 8
    late = with_curve(a_run("a", 1, 3.0), [0, 4], [5, 3], seconds=[math.nan, 4, 5, 6])
    assert cost_at(late, "seconds", np.array([0.0, 1.0, 2.0])).tolist() == [0, 2, 4]
    each = run.summary["flops_per_token"]
    assert cost_at(run, "flops", steps).tolist() == [0, 10 * each, 30 * each, 40 * each]


@pytest.mark.parametrize("recorded", [{}, {"flops_per_token": None}])
def test_flops_are_unknown_where_those_of_a_token_are(recorded):
    run = replace(a_run("a", 1, 3.0), summary={"final_val_loss": 3.0} | recorded)
    assert cost_at(run, "flops", np.array([1.0])) is None


def test_costs_of_a_target_without_clock_or_evaluations():
    run = with_curve(a_run("a", 1, 3.0), [0, 2, 4], [5, 3, 2], tokens=[10, 20, 30, 40])
    assert to_target(run, 3.0) == {
        "steps_to_target": 2,
        "seconds_to_target": 0.0,
        "tokens_to_target": 20.0,
    }
    assert type(to_target(run, 3.0)["steps_to_target"]) is int
    infinite = dict.fromkeys(("steps_to_target", "seconds_to_target", "tokens_to_target"), math.inf)
    assert to_target(run, 1.0) == infinite
    assert to_target(replace(run, val={"step": np.array([])}), 9.0) == infinite
