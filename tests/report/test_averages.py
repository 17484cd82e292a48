from dataclasses import replace

from report.averages import averages
from report.judgement import judge
from tests.report.studies import BASE, a_study


def with_ema(study, arm, less):
    """The study; in runs of `arm` an average has a final val loss that is lower by `less`."""
    runs = [
        replace(run, summary={**run.summary, "final_val_loss_ema": run.final_loss - less})
        if run.arm == arm
        else run
        for run in study.runs
    ]
    return replace(study, runs=runs)


def test_final_losses_of_averages_stand_beside_the_judged_ones():
    study = with_ema(a_study({"plain": BASE, "ema": {1: 3.2, 2: 3.3, 3: 3.4}}), "ema", 0.05)
    (table,) = averages(study, judge(study)).tables
    ((arm, *cells),) = table.rows
    assert arm.text == "ema"
    assert cells == ["ema", "3.2500", "−0.0500", "3 runs"]


def test_there_is_no_section_without_averages():
    study = a_study({"plain": BASE, "other": BASE})
    assert averages(study, judge(study)) is None
