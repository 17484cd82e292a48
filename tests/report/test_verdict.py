"""Verdicts: what is called, by which test, and the numbers beside it."""

import math

import pytest
from scipy import stats

from report.judgement import judge
from report.study import Study
from tests.report.studies import BASE, FIVE, a_run, a_study, changed, rows


def test_better_worse_and_no_evidence_with_paired_t_and_holm():
    found = rows(a_study(FIVE))
    assert {arm: row.comparison and row.comparison.words for arm, row in found.items()} == {
        "base": None, "good": "better", "bad": "worse", "same": "no evidence",
    }  # fmt: skip
    p = {}
    for arm in ("good", "bad", "same"):
        test = stats.ttest_rel(list(FIVE[arm].values()), list(BASE.values()))
        p[arm] = test.pvalue
        c = found[arm].comparison
        assert c.p == pytest.approx(test.pvalue)
        assert (c.low, c.high) == pytest.approx(tuple(test.confidence_interval()))
        assert c.method == "paired t"
    order = sorted(p, key=p.get)
    assert found[order[0]].comparison.p_holm == pytest.approx(3 * p[order[0]])
    assert list(found) == ["good", "base", "same", "bad"]


def test_pairs_see_what_unpaired_runs_do_not():
    study = a_study({"base": BASE, "good": {1: 3.281, 2: 3.290, 3: 3.269}})
    assert rows(study)["good"].comparison.words == "better"
    moved = a_study({"base": BASE, "good": {11: 3.281, 12: 3.290, 13: 3.269}})
    c = rows(moved)["good"].comparison
    assert (c.method, c.differences) == ("Welch", {})
    test = stats.ttest_ind([3.281, 3.290, 3.269], list(BASE.values()), equal_var=False)
    assert c.p == pytest.approx(test.pvalue)


def test_missing_pair_means_welch_and_says_so():
    c = rows(a_study({"base": BASE, "arm": {1: 3.281, 2: 3.290}}))["arm"].comparison
    assert c.method == "Welch"
    assert "2 and 3 runs, 2 pairs: compared unpaired" in c.notes


def test_one_seed_gives_no_verdict_in_words():
    judgement = judge(a_study({"base": {1: 3.3}, "arm": {1: 2.0}}))
    row = next(r for r in judgement.rows if r.arm == "arm")
    assert row.comparison.words == "no verdict: one seed cannot be told from noise"
    assert (row.std, row.low, row.comparison.p) == (None, None, None)
    assert "no verdict" in judgement.headline


def test_identical_runs_are_no_evidence():
    c = rows(a_study({"base": BASE, "again": BASE}))["again"].comparison
    assert (c.words, c.p, c.difference) == ("no evidence", 1.0, 0.0)
    assert any("equal to the last bit" in note for note in c.notes)


def test_diverged_run_makes_the_arm_infinite_unless_censored():
    study = changed(a_study(FIVE), "good", 2, status="diverged", summary={"initial_val_loss": 5.5})
    row = rows(study)["good"]
    assert (row.mean, row.n, row.diverged) == (math.inf, 3, 1)
    assert row.comparison.words == "diverged: 1 of 3 runs, so its loss counts as infinite"
    assert row.speedups["tokens"].words.startswith("not reached")
    censored = rows(study, censor_diverged=True)["good"]
    assert (censored.n, censored.diverged) == (2, 1)
    assert censored.mean == pytest.approx(3.275)
    assert any("diverged" in problem for problem in judge(study, censor_diverged=True).problems)


def test_diverged_baseline_gives_no_verdict():
    study = changed(a_study(FIVE), "base", 2, status="diverged", summary={})
    assert rows(study)["good"].comparison.words.startswith(
        "no verdict: 1 of 3 runs of the baseline"
    )


@pytest.mark.parametrize("status", ["running", "stopped", "failed", "missing"])
def test_unfinished_runs_do_not_count_and_are_said(status):
    study = changed(a_study(FIVE), "good", 2, status=status)
    row = rows(study)["good"]
    assert (row.n, row.planned, row.statuses[status]) == (2, 3, 1)
    assert "1 of 3 runs are not finished" in row.comparison.notes


def test_lengths_are_compared_with_the_baseline_of_the_same_length():
    runs = [
        a_run(f"{arm} @ {n}", seed, 3 + gain + seed / 100, steps=n)
        for arm, gain in (("a", 0.0), ("b", -0.1))
        for n in (100, 200)
        for seed in (1, 2)
    ]
    arms = list(dict.fromkeys(run.arm for run in runs))
    found = rows(Study("c", runs, "a", None, arms))
    assert found["b @ 200"].comparison.baseline == "a @ 200"
    assert found["a @ 200"].is_baseline
    short = rows(
        Study("c", [r for r in runs if r.arm != "a @ 200"], "a", None, arms[:1] + arms[2:])
    )
    assert short["b @ 200"].comparison.call == "refused"
