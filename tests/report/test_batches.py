"""Tables of larger batches: which arms are compared, and with which numbers."""

from dataclasses import replace

import numpy as np
import pytest

from report.batches import against_smaller, by_batch, overview, section
from report.inside_figures import with_noise_scale
from tests.report.studies import changed, two_batches


def test_a_larger_batch_is_compared_with_as_many_tokens_else_as_many_updates():
    assert against_smaller(two_batches()).against == {
        "adamw-x4": "adamw-x1",
        "sgd-x4": "sgd-x1",
        "sgd-long": "sgd-x1",
    }


def cells(table):
    rows = [[getattr(cell, "text", cell) for cell in row] for row in table.rows]
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in rows}


def test_tables_have_the_differences_and_verdicts():
    found = cells(by_batch(two_batches()))
    assert found["adamw-x4 less adamw-x1"]["test loss"].split()[0] == "+0.1002"
    assert found["adamw-x4 less adamw-x1"]["test loss"].endswith("worse")
    assert found["sgd-long less sgd-x1"]["test loss"].endswith("better")
    assert found["sgd-x4 less sgd-x1"]["test loss - train loss"].split()[0] == "+0.1200"
    assert found["sgd-x4 less sgd-x1"]["Keskar's sharpness, %"] == "–"  # nothing was measured

    rivals = cells(overview(two_batches()))
    assert rivals["adamw-x1"]["verdict"] == "baseline"
    assert rivals["sgd-x4"]["against"] == "adamw-x4"
    assert float(rivals["sgd-x4"]["difference"].split()[0]) == pytest.approx(0.8, abs=0.01)
    assert (rivals["sgd-x4"]["batch"], rivals["sgd-x4"]["updates"]) == ("2,048", "20")
    assert rivals["sgd-x4"]["noise scale"] == "–"


def test_the_noise_scale_at_the_end_is_the_median_of_the_last_tenth_that_is_known():
    """And of an arm the geometric mean over its seeds: 900, 900 and 900 x 8."""
    plain = two_batches()
    measured = np.array([1.0] * 18 + [800.0, np.nan, 1000.0])  # 20 are known
    runs = []
    for run in plain.runs:
        values = measured * 8 if run.seed == 3 else measured
        runs.append(replace(run, train=run.train | {"inside/noise_scale": values}))
    table = cells(overview(with_noise_scale(replace(plain, runs=runs))))
    assert table["adamw-x1"]["noise scale"] == "1,800"


def test_an_arm_that_diverged_stays_in_both_tables():
    plain = two_batches()
    for arm, seeds in {"sgd-x4": (1, 2, 3), "adamw-x4": (2,)}.items():
        for seed in seeds:
            plain = changed(plain, arm, seed, status="diverged")
    for_all, own = cells(overview(plain)), cells(by_batch(plain))
    assert for_all["adamw-x4"]["verdict"].startswith("diverged: 1 of 3 runs")
    assert for_all["sgd-x4"]["batch"] == "2,048"
    assert for_all["sgd-x4"]["verdict"].startswith("no verdict")  # its baseline diverged
    assert own["sgd-x4 less sgd-x1"]["test loss"] == "diverged"
    assert own["adamw-x4 less adamw-x1"]["test loss"] == "diverged"


def test_a_noise_scale_below_zero_has_no_geometric_mean():
    plain = two_batches()
    runs = [replace(run, summary=run.summary | {"noise_scale": -3.0}) for run in plain.runs]
    assert cells(overview(replace(plain, runs=runs)))["sgd-x1"]["noise scale"] == "–"


def test_a_contest_that_was_not_run_says_so():
    found = section(["docs/results/nowhere"])
    assert found.lines == ["not run yet: python -m contest configs/contest/nowhere.toml"]
