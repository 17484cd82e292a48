"""Numbers of a verdict, computed once more: numpy and scipy on metrics.jsonl of nine real runs."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from report.judgement import judge
from report.sources import read
from tests.jobs import command
from tests.oracle.reference import column, lines_of
from train_gpt2 import main

RATES = {"base": "3e-3", "fast": "6e-3", "slow": "2e-3"}
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def contest(shards, tmp_path_factory):
    """(judgement, {arm: [lines of each seed]}) of three arms with three seeds."""
    runs = tmp_path_factory.mktemp("contest")
    found = {arm: [] for arm in RATES}
    for arm, rate in RATES.items():
        for seed in SEEDS:
            flags = f"--seed {seed} --data_seed {seed} --optimizer.lr {rate} --log.job_type {arm} "
            flags += "--train.total_steps 16 --eval.every 4 --checkpoint.every 0"
            before = set(runs.iterdir())
            assert main([*command(shards, runs), *flags.split()]) == 0
            (directory,) = set(runs.iterdir()) - before
            found[arm].append(lines_of(directory))
    study = replace(read([str(runs)]), baseline="base")
    alone = [replace(run, shared=None) for run in study.runs]  # whatever else runs here
    return judge(replace(study, runs=alone)), found


def val_curves(runs):
    """(steps, losses of shape (runs, evaluations))."""
    curves = [[(x["step"], x["val/loss"]) for x in run if "val/loss" in x] for run in runs]
    return np.array(curves)[0, :, 0], np.array(curves)[:, :, 1]


def finals(contest):
    """What is judged: the loss on the test split, of each seed."""
    return {
        arm: np.array([x["test/loss"] for run in runs for x in run if "test/loss" in x])
        for arm, runs in contest[1].items()
    }


def by_arm(contest):
    return {row.arm: row for row in contest[0].rows}


def test_leaderboard_is_sorted_by_the_mean_of_the_test_loss(contest):
    for arm, losses in finals(contest).items():
        row = by_arm(contest)[arm]
        assert abs(losses.mean() - np.median(losses)) > 1e-5
        assert row.mean == pytest.approx(losses.mean(), rel=1e-12)
        assert row.std == pytest.approx(losses.std(ddof=1), rel=1e-9)
        interval = stats.t.interval(0.95, 2, losses.mean(), stats.sem(losses))
        assert (row.low, row.high) == pytest.approx(interval, rel=1e-9)
        assert (row.n, row.diverged) == (3, 0)
    assert [row.arm for row in contest[0].rows] == sorted(
        RATES, key=lambda arm: finals(contest)[arm].mean()
    )


def test_comparisons_are_paired_differences_with_holms_correction(contest):
    losses, rows = finals(contest), by_arm(contest)
    tests = {arm: stats.ttest_rel(losses[arm], losses["base"]) for arm in ("fast", "slow")}
    first, second = sorted(tests, key=lambda arm: tests[arm].pvalue)
    holm = {first: min(1.0, 2 * tests[first].pvalue)}
    holm[second] = min(1.0, max(holm[first], tests[second].pvalue))
    for arm, test in tests.items():
        c = rows[arm].comparison
        gaps = losses[arm] - losses["base"]
        assert c.method == "paired t"
        assert c.differences == pytest.approx(dict(zip([(s, s) for s in SEEDS], gaps, strict=True)))
        assert c.difference == pytest.approx(gaps.mean())
        assert (c.low, c.high) == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9)
        assert c.p == pytest.approx(test.pvalue, rel=1e-9)
        assert c.p_holm == pytest.approx(holm[arm], rel=1e-9)
        sure = "better" if gaps.mean() < 0 else "worse"
        assert c.call == (sure if holm[arm] < 0.05 else "undecided")
    assert rows["base"].comparison is None


def test_costs_of_the_baselines_final_loss_are_read_off_the_curves(contest):
    target = val_curves(contest[1]["base"])[1][:, -1].mean()
    assert contest[0].target == pytest.approx(target)
    for arm, runs in contest[1].items():
        spent = {"steps_to_target": [], "seconds_to_target": [], "tokens_to_target": []}
        for run in runs:
            reached = [x["step"] for x in run if "val/loss" in x and x["val/loss"] <= target]
            step = reached[0] if reached else math.inf
            ms = column(run, "time/step_ms")
            spent["steps_to_target"].append(step)
            spent["tokens_to_target"].append(step * 512)
            spent["seconds_to_target"].append(ms[:step].sum() / 1e3 if reached else math.inf)
        for name, values in spent.items():
            found = by_arm(contest)[arm].to_target[name]
            reached = [x for x in values if math.isfinite(x)] or [math.inf]
            expected = min(reached), np.median(reached), max(reached)
            assert (found.low, found.median, found.high) == pytest.approx(expected)
            assert found.missed == sum(map(math.isinf, values))


def test_speedups_are_the_geometric_mean_of_each_pairs_ratio_at_the_baselines_loss(contest):
    steps, base = val_curves(contest[1]["base"])
    for arm in ("fast", "slow"):
        ratios = []
        for mine, theirs in zip(val_curves(contest[1][arm])[1], base, strict=True):
            assert (np.diff(mine) < 0).all()
            reached = mine[-1] <= theirs[-1]
            ratios.append(16 / np.interp(-theirs[-1], -mine, steps) if reached else 0.0)
        found = by_arm(contest)[arm].speedups
        for axis in ("steps", "tokens"):
            assert found[axis].ratio == pytest.approx(stats.gmean(ratios))
    assert by_arm(contest)["slow"].speedups["steps"].ratio < 1
