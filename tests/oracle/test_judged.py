"""What is judged, computed once more: numpy and scipy straight on metrics.jsonl of real runs."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from record.runlog import read_summary
from report.runs import read
from report.verdict import judge
from tests.jobs import command, only_run, write_shard
from train_gpt2 import main


def lines_of(directory):
    text = (directory / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def column(lines, name):
    return np.array([line[name] for line in lines if name in line])


# ------------------------------------------------------------------------- the summary of one run


@pytest.fixture(scope="module")
def spiky(tmp_path_factory):
    """A run of 200 updates on 2 windows each; three of the 400 windows are like no other."""
    folder = tmp_path_factory.mktemp("spiky")
    tokens = np.random.default_rng(0).binomial(255, 0.1, 400 * 32 + 1 + 32 * 8 + 1)
    for window in (20, 110, 310):
        tokens[window * 32 : window * 32 + 32] = 255
    write_shard(folder / "x_train_0.bin", tokens[: 400 * 32 + 1])
    write_shard(folder / "x_val_0.bin", tokens[400 * 32 + 1 :])
    flags = "--model.n_layer 1 --train.total_steps 200 --train.batch_tokens 64 --eval.tokens 256 "
    flags += "--eval.every 30 --schedule.warmup_steps 10 --checkpoint.every 0"
    assert main([*command(folder, folder / "runs"), *flags.split()]) == 0
    directory = only_run(folder / "runs")
    return lines_of(directory), read_summary(directory)


def test_scores_of_every_update_are_those_of_the_losses_before_it(spiky):
    lines, summary = spiky
    loss, norm = column(lines, "train/loss"), column(lines, "train/grad_norm")
    assert len(loss) == 200
    stability = [1 / (1 + np.std(loss[: t + 1])) for t in range(200)]
    assert column(lines, "train/stability_score") == pytest.approx(stability, rel=1e-9)
    hits = 0
    for t in range(128, 200):
        before = slice(t - 128, t)
        hits += any(x[t] > x[before].mean() + 6 * x[before].std() for x in (loss, norm))
    assert hits > 0
    assert summary["spike_score"] == pytest.approx(100 * hits / 72)
    assert column(lines, "train/spike_score")[-1] == summary["spike_score"]
    assert summary["stability_score"] == pytest.approx(stability[-1], rel=1e-9)


def test_summary_is_numpys_on_the_lines(spiky):
    lines, summary = spiky
    loss, ms = column(lines, "train/loss"), column(lines, "time/step_ms")
    val = {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}
    assert list(val) == [0, 30, 60, 90, 120, 150, 180, 200]
    best = min(val, key=val.get)
    warmup = int(np.argmax(column(lines, "train/lr")))
    assert warmup == 9  # the last of 10 updates has the whole rate
    near = np.flatnonzero(np.abs(loss[1:] / loss[:-1] - 1) < 1e-3)
    assert {name: summary[name] for name in ("best_val_step", "steps", "tokens")} == {
        "best_val_step": best,
        "steps": 200,
        "tokens": 200 * 64,
    }
    expected = {
        "initial_val_loss": val[0],
        "final_val_loss": val[200],
        "best_val_loss": val[best],
        "final_train_loss": loss[-1],
        "avg_loss": loss.mean(),
        "avg_grad_norm": column(lines, "train/grad_norm").mean(),
        "loss_noise": np.std(loss[10:] - loss[9:-1]) / math.sqrt(2),
        "train_seconds": ms.sum() / 1000,
        "step_ms_median": np.median(ms),
        "step_ms_p99": np.percentile(ms, 99),
        "optimizer_ms_median": np.median(column(lines, "time/optimizer_ms")),
        "data_wait_ms_median": np.median(column(lines, "time/data_wait_ms")),
        "tokens_per_second": 200 * 64 / (ms.sum() / 1000),
    }
    assert {name: summary[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert summary["converged_step"] == (int(near[0]) + 1 if len(near) else None)
    assert (summary["nonfinite_updates"], summary["diverged"]) == (0, False)


# ---------------------------------------------------------------------------- the verdict on arms

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
    return judge(study), found


def val_curves(runs):
    """(steps, losses of shape (runs, evaluations))."""
    curves = [[(x["step"], x["val/loss"]) for x in run if "val/loss" in x] for run in runs]
    return np.array(curves)[0, :, 0], np.array(curves)[:, :, 1]


def finals(contest):
    return {arm: val_curves(runs)[1][:, -1] for arm, runs in contest[1].items()}


def by_arm(contest):
    return {row.arm: row for row in contest[0].rows}


def test_leaderboard_is_sorted_by_the_mean_of_the_final_validation_loss(contest):
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
        assert c.call == (sure if holm[arm] < 0.05 else "no evidence")
    assert rows["base"].comparison is None


def test_costs_of_the_baselines_final_loss_are_read_off_the_curves(contest):
    target = finals(contest)["base"].mean()
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
            expected = sorted(values)
            assert (found.low, found.median, found.high) == pytest.approx(tuple(expected))


def test_speedups_are_the_ratio_of_costs_at_the_baselines_final_mean_loss(contest):
    steps, base = val_curves(contest[1]["base"])
    target = base.mean(axis=0)[-1]
    for arm in ("fast", "slow"):
        _, losses = val_curves(contest[1][arm])
        curve = losses.mean(axis=0)
        assert (np.diff(curve) < 0).all()
        at = np.interp(-target, -curve, steps) if curve[-1] <= target else math.inf
        found = by_arm(contest)[arm].speedups
        assert found["steps"].ratio == pytest.approx(16 / at)
        assert found["tokens"].ratio == pytest.approx(16 / at)
    assert by_arm(contest)["slow"].speedups["steps"].ratio < 1
