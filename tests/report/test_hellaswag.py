"""HellaSwag in the report: a table by arm, weights and questions, and a figure."""

from dataclasses import replace

import numpy as np
import pytest

from report.drawing import styles
from report.hellaswag import figure, section
from tests.report.studies import BASE, a_study


def asked(run, accuracy, count=1000, digest="a" * 64, **more):
    """The run, whose accuracy rose in a straight line from chance."""
    summary = {"final_hellaswag_acc_norm": accuracy, "final_hellaswag_questions": count, **more}
    rise = np.linspace(0.25, accuracy, len(run.val["step"]))
    return replace(
        run,
        summary=run.summary | summary,
        hashes=run.hashes | {"hellaswag": digest},
        val=run.val | {"hellaswag/acc_norm": rise},
    )


def of(finals, accuracies):
    """A study whose arms have these accuracies by seed, or none."""
    study = a_study(finals)
    runs = [
        asked(run, accuracies[run.arm][run.seed], **accuracies[run.arm].get("more", {}))
        if run.arm in accuracies
        else run
        for run in study.runs
    ]
    return replace(study, runs=runs)


def test_each_arm_has_its_mean_with_the_interval_of_the_questions():
    study = of({"a": BASE, "b": BASE}, {"a": {1: 0.48, 2: 0.50, 3: 0.52}})
    (table,) = section(study).tables
    ((arm, *cells),) = table.rows
    assert arm.text == "a"
    # Wilson, 500 of 1,000: 0.5 +- 1.96 / (2 sqrt(1000 + 1.96^2))
    expected = ["judged", "0.5000", "[0.4691, 0.5309]", "0.0200", "3 runs", "1,000 (aaaaaaaa)"]
    assert cells == expected


def test_other_questions_and_other_weights_have_rows_of_their_own():
    study = of(
        {"a": BASE, "b": BASE},
        {
            "a": {1: 0.3, 2: 0.3, 3: 0.3, "more": {"final_hellaswag_acc_norm_ema": 0.4}},
            "b": {1: 0.5, 2: 0.5, 3: 0.5, "more": {"digest": "b" * 64}},
        },
    )
    rows = [[row[0].text, row[1], row[2], row[-1]] for row in section(study).tables[0].rows]
    assert rows == [
        ["a", "judged", "0.3000", "1,000 (aaaaaaaa)"],
        ["a", "ema", "0.4000", "1,000 (aaaaaaaa)"],
        ["b", "judged", "0.5000", "1,000 (bbbbbbbb)"],
    ]


def test_the_figure_shows_the_rise_of_runs_on_the_usual_questions():
    study = of(
        {"a": BASE, "b": BASE, "c": {1: 3.4}},
        {
            "a": {1: 0.3, 2: 0.3, 3: 0.36},
            "b": {1: 0.5, 2: 0.5, 3: 0.5},
            "c": {1: 0.9, "more": {"digest": "b" * 64}},
        },
    )
    drawn = figure(study, styles(study))
    assert drawn.said.endswith("at the end: a 0.3200, b 0.5000.")
    assert drawn.note.endswith("1 run on other questions left out.")
    lines = [trace for trace in drawn.plot.data if trace.y is not None]
    assert max(max(trace.y) for trace in lines) == pytest.approx(0.5)


def test_there_is_nothing_of_it_where_no_run_was_asked():
    study = a_study({"a": BASE, "b": BASE})
    assert section(study) is None
    assert figure(study, styles(study)) is None
