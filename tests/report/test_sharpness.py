"""Sharpness in a report: the text that most measurements share, and paths over training."""

from dataclasses import replace

import pytest

from record.runlog import RecordError
from record.sharpness import add, read
from report.drawing import styles
from report.sharpness import figures, section, with_last
from tests.report.studies import BASE, a_study, measured, only_loss, rows


@pytest.fixture
def study():
    """Two arms of which three runs were measured: one on another text, one of them rescaled."""
    plain = a_study({"small": BASE, "large": BASE})
    found = {
        ("small", 1): (measured(50, loss=3.0), measured(100, keskar=1.5)),
        ("large", 1): (measured(100, keskar=7.5), measured(100, rescaled=4.0, keskar=99.0)),
        ("large", 2): (measured(100, text="other"),),
    }
    runs = [replace(run, sharpness=found.get((run.arm, run.seed), ())) for run in plain.runs]
    return replace(plain, runs=runs)


def test_the_table_has_each_run_at_its_last_step_on_the_text_that_most_share(study):
    found = section(study)
    (table,) = found.tables
    assert [(row[0].text, *row[1:3], row[7]) for row in table.rows] == [
        ("small", "1", "100", "1.5"),
        ("large", "1", "100", "7.5"),
    ]
    assert table.rows[0][5:7] == ["0.237", "500 ± 12"]  # 9000 * 1e-3 / 38
    assert "Not shown: 1 measurement on other tokens or with other passes." in found.text
    assert section(a_study({"small": BASE})) is None


def test_a_rise_that_more_passes_have_found_is_not_beside_one_of_fewer():
    plain = a_study({"small": BASE, "large": BASE})
    found = {
        ("small", 1): (measured(50), measured(100)),
        ("large", 1): (measured(100, passes=40),),
        ("large", 2): (measured(100, passes=0),),  # other measures are alike
    }
    runs = [replace(run, sharpness=found.get((run.arm, run.seed), ())) for run in plain.runs]
    shown = section(replace(plain, runs=runs))
    assert [row[1] for row in shown.tables[0].rows] == ["1", "2"]
    assert "Not shown: 1 measurement on" in shown.text


def test_the_figure_is_a_path_for_each_run(study):
    drawn, _, adaptive = figures(study, styles(study))
    paths = {trace.meta["arm"]: (list(trace.x), list(trace.y)) for trace in drawn.plot.data}
    assert paths == {"small": ([3.0, 2.0], [3.0, 1.5]), "large": ([2.0], [7.5])}
    assert [list(trace.y) for trace in adaptive.plot.data] == [[0.02, 0.02], [0.02]]
    assert figures(a_study({"small": BASE}), {}) == [None, None, None]


def test_a_gap_is_to_what_each_run_was_trained_on_where_that_was_measured():
    plain, runs = a_study({"small": BASE, "large": BASE}), []
    for run in plain.runs:
        ends = {"steps": 100, "final_test_loss": 2.5}
        own = only_loss(100, 2.0 + run.seed / 100, text=f"of seed {run.seed}", split="seen")
        found = (only_loss(100, 2.4), own)
        runs.append(replace(run, summary=run.summary | ends, sharpness=found))
    study = with_last(replace(plain, runs=runs))
    gaps = rows(study, metric="train_test_gap")["large"].values
    assert gaps == pytest.approx({(n, n): 0.5 - n / 100 for n in (1, 2, 3)})


def test_what_was_measured_after_the_last_update_can_be_judged_with_intervals():
    """Gaps are on the longest text that most runs share; the sharpness at step 50 is no end."""
    plain = a_study({"small": BASE, "large": BASE, "unmeasured": BASE})
    runs = []
    for run in plain.runs:
        ends = {"steps": 100, "final_test_loss": 2.5}
        train = 2.1 + run.seed / 500 if run.arm == "large" else 2.3 + run.seed / 1000
        keskar = {"small": 3.0, "large": 7.0}.get(run.arm, 0.0) + run.seed / 10
        found = (measured(50, keskar=99.0), measured(100, keskar=keskar), only_loss(100, train))
        others = (only_loss(100, 9.0, text="longest of one run", tokens=99999),)
        found += others if (run.arm, run.seed) == ("small", 1) else ()
        sharpness = () if run.arm == "unmeasured" else found
        runs.append(replace(run, summary=run.summary | ends, sharpness=sharpness))
    study = with_last(replace(plain, runs=runs))

    gaps = rows(study, metric="train_test_gap")
    assert gaps["small"].mean == pytest.approx(2.5 - 2.302)
    assert gaps["large"].comparison.difference == pytest.approx(0.198)
    assert gaps["unmeasured"].comparison.call == "no verdict"
    sharp = rows(study, metric="keskar_sharpness")
    assert sharp["large"].values == pytest.approx({(n, n): 7 + n / 10 for n in (1, 2, 3)})
    assert "Not shown" not in section(study).text  # a loss is no measure of sharpness
    (table,) = section(study).tables
    assert [row[9] for row in table.rows[:3]] == ["0.1990", "0.1980", "0.1970"]


def test_a_gap_needs_a_test_loss_and_a_checkpoint_after_the_last_update():
    plain = a_study({"small": BASE})
    one, two, _ = plain.runs
    untested = replace(one, summary={"steps": 100}, sharpness=(only_loss(100, 2.0),))
    early = {"steps": 100, "final_test_loss": 2.5}
    stopped = replace(two, summary=early, sharpness=(only_loss(90, 2.0),))
    for run in with_last(replace(plain, runs=[untested, stopped])).runs:
        assert "train_test_gap" not in run.summary


def test_what_is_added_replaces_its_setting_and_a_damaged_file_is_one_line(tmp_path):
    add(tmp_path, [measured(100), measured(50)])
    add(tmp_path, [measured(100, keskar=8.0), measured(100, text="other")])
    found = read(tmp_path)
    assert [(x.step, x.text) for x in found] == [(50, "t"), (100, "other"), (100, "t")]
    assert found[2].neighbourhoods[0].all_directions == 8.0
    (tmp_path / "sharpness.json").write_text("[")
    with pytest.raises(RecordError, match="is damaged"):
        read(tmp_path)
