"""Tables of larger batches: which arms are compared, and with which numbers."""

from dataclasses import replace

import numpy as np
import pytest

from report.batches import against_smaller, by_batch, overview, section
from report.inside_figures import with_noise_scale
from tests.report.studies import two_batches


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


def test_a_contest_that_was_not_run_says_so():
    found = section(["docs/results/nowhere"])
    assert found.lines == ["not run yet: python -m contest configs/contest/nowhere.toml"]
