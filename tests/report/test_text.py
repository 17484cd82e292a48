"""Which held-out text decides."""

from dataclasses import replace

import pytest

from report.judgement import judge
from report.tables import sections
from report.wandb_runs import _lines
from tests.report.studies import BASE, FIVE, a_study, rows


def with_test(study, losses=lambda run: run.final_loss + 0.5, **status):
    """The study with a final test loss in every run."""
    runs = [
        replace(run, summary=run.summary | {"final_test_loss": losses(run)}) for run in study.runs
    ]
    return replace(study, runs=runs)


def test_test_loss_decides_where_every_run_has_one():
    study = with_test(a_study(FIVE), lambda run: 3.0 - run.final_loss)  # the other way round
    judgement = judge(study)
    assert judgement.metric == "final_test_loss"
    assert judgement.judged_on == ""
    assert "in final test loss" in judgement.headline
    assert {arm: row.comparison.call for arm, row in rows(study).items() if row.comparison} == {
        "good": "worse",
        "bad": "better",
        "same": "undecided",
    }
    assert judge(study, metric="final_val_loss").metric == "final_val_loss"


@pytest.mark.parametrize(
    ("missing", "said"), [(12, "no run has a test loss"), (1, "1 of 12 runs have no test loss")]
)
def test_val_loss_decides_and_is_named_where_a_run_has_no_test_loss(missing, said):
    study = with_test(a_study(FIVE))
    runs = [
        replace(run, summary=run.summary | {"final_test_loss": None}) if i < missing else run
        for i, run in enumerate(study.runs)
    ]
    judgement = judge(replace(study, runs=runs))
    assert judgement.metric == "final_val_loss"
    assert judgement.judged_on.startswith(f"Judged on the validation text: {said}")
    (answer, *_) = sections(study, judgement, "")
    assert judgement.judged_on in answer.lines
    assert judge(replace(study, runs=runs), metric="final_val_loss").judged_on == ""


def test_a_run_that_diverged_needs_no_test_loss():
    study = with_test(a_study({"base": BASE, "wild": {1: 3.3, 2: 9.0, 3: 3.3}}))
    runs = [
        replace(run, status="diverged", summary={"diverged": True}) if run.final_loss > 8 else run
        for run in study.runs
    ]
    judgement = judge(replace(study, runs=runs))
    assert judgement.metric == "final_test_loss"
    assert [row.comparison.call for row in judgement.rows if row.comparison] == ["diverged"]


def test_runs_evaluated_on_different_texts_are_refused():
    study = with_test(a_study({"base": BASE, "other": FIVE["good"]}))
    runs = [replace(run, hashes=run.hashes | {"test": f"text-{run.arm}"}) for run in study.runs]
    comparison = rows(replace(study, runs=runs))["other"].comparison
    assert comparison.call == "refused"
    assert "test texts differ for seed 1 (base text-bas, other text-oth)" in comparison.why


def test_the_test_loss_of_a_run_in_weights_and_biases_is_an_evaluation():
    row = {"_step": 9, "val/loss": 3.0, "test/loss": 3.1, "time/eval_seconds": 2.0}
    assert _lines([row]) == [{"step": 9} | {k: v for k, v in row.items() if k != "_step"}]
