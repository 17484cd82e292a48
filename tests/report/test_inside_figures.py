"""Heat maps of what updates showed: the right tensors in the right rows, for several arms."""

from dataclasses import replace

import numpy as np
import pytest

from record.inside import Measured
from report.drawing import styles
from report.figures import figures
from report.inside_figures import MOST_COLUMNS, heat_maps
from report.judgement import judge
from tests.report.studies import a_study

TENSORS = ("wte", "h.0.a", "h.0.b", "h.0.bias", "h.1.a", "h.1.b", "ln_f")
ROLES = ("embedding", "hidden", "hidden", "vector", "hidden", "hidden", "vector")


def measured(gains, steps=(0, 10)):
    table = np.array([[g * (1 + t) for g in gains] for t in range(len(steps))], dtype=float)
    columns = {"gain": table, "update_ratio": table / 1e3}
    return Measured(np.array(steps), TENSORS, ROLES, columns, {})


def study_of(**inside):
    study = a_study({"adamw": {1: 3.3, 2: 3.2}, "sgd": {1: 3.4, 2: 3.5}, "lion": {1: 3.1, 2: 3.0}})
    runs = [
        replace(run, inside=inside.get(run.arm)) if run.seed == 2 else run for run in study.runs
    ]
    return replace(study, runs=runs)


def test_a_row_is_the_median_of_a_blocks_hidden_matrices_and_an_arm_a_panel():
    study = study_of(
        adamw=measured([1e4, 10, 1000, 7, 1, 1e-2, np.nan]), sgd=measured([1] * 7, (0, 5))
    )
    gain, ratio = heat_maps(study, styles(study))
    assert [trace.meta["arm"] for trace in gain.plot.data] == ["adamw", "sgd"]
    adamw, sgd = gain.plot.data
    assert list(adamw.y) == ["embedding", "block 0", "vector", "block 1"]
    expected = [4, 2, np.log10(7), -1]
    assert [row[0] for row in adamw.z] == pytest.approx(expected, abs=1e-3)
    assert [row[1] for row in adamw.z] == pytest.approx(np.add(expected, np.log10(2)), abs=1e-3)
    assert list(sgd.x) == [0, 5]
    assert [row[0] for row in ratio.plot.data[0].z] == pytest.approx(
        np.subtract(expected, 3), abs=1e-3
    )
    assert "seed 2" in gain.note
    assert {trace.coloraxis for trace in gain.plot.data} == {"coloraxis"}
    assert adamw.xaxis != sgd.xaxis


def test_many_steps_are_pooled_and_nothing_is_drawn_without_a_measurement():
    long = measured([1] * 7, tuple(range(0, 5000, 10)))
    study = study_of(adamw=long)
    assert len(heat_maps(study, styles(study))[0].plot.data[0].x) == MOST_COLUMNS
    assert heat_maps(study_of(), styles(study)) == []


def test_curves_by_role_and_the_noise_scale_beside_the_batch_are_drawn():
    study = a_study({"adamw": {1: 3.3, 2: 3.2}, "sgd": {1: 3.4, 2: 3.5}})
    for run in study.runs:
        values = np.full(100, np.nan)
        values[::10] = 2048.0 * (1 + run.seed)
        run.train.update({"inside/noise_scale": values, "inside/gain_hidden": values / 100})
    drawn = {figure.id: figure for figure in figures(study, judge(study))}
    assert "gain" in drawn
    assert "update_ratio" not in drawn
    noise = drawn["noise_scale"].plot
    (line,) = noise.layout.shapes
    assert line.y0 == line.y1 == 4096  # the batch
    (mean,) = (t for t in noise.data if t.name == "adamw")
    assert len(mean.x) == 10
    assert list(mean.y) == [5120.0] * 10
