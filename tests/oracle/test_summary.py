"""Numbers of a run's summary, computed once more: numpy straight on metrics.jsonl of a real run."""

import math

import numpy as np
import pytest

from record.runlog import read_summary
from tests.jobs import command, only_run, write_shard
from tests.oracle.reference import column, lines_of
from train_gpt2 import main


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
