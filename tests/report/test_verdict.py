"""Verdicts: what is called, by which test, and the numbers beside it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from report import verdict
from report.judgement import judge
from report.study import Study, by_length
from report.verdict import Comparison, adjusted, compare, values_of
from tests.report.studies import BASE, FIVE, a_run, a_study, changed, rows


def test_better_worse_and_undecided_with_moderated_t_and_holm():
    found = rows(a_study(FIVE))
    assert {arm: row.comparison and row.comparison.words for arm, row in found.items()} == {
        "base": None, "good": "better", "bad": "worse", "same": "undecided",
    }  # fmt: skip
    gaps = {arm: np.subtract(list(FIVE[arm].values()), list(BASE.values())) for arm in FIVE}
    own = {arm: gaps[arm].var(ddof=1) for arm in ("good", "bad", "same")}
    p = {}
    for arm, variance in own.items():
        others = np.mean([own[other] for other in own if other != arm])
        error = math.sqrt(max(variance, (variance + others) / 2) / 3)
        p[arm] = min(1, 2 * stats.t.sf(abs(gaps[arm].mean()) / error, 4) / 0.9)
        c, half = found[arm].comparison, stats.t.isf(0.9 * 0.025, 4) * error
        assert c.p == pytest.approx(p[arm])  # the arm's own t, with a tenth of the level, is less
        assert (c.low, c.high) == pytest.approx((c.difference - half, c.difference + half))
        assert c.method == "moderated t"
    order = sorted(p, key=p.get)
    assert found[order[0]].comparison.p_holm == pytest.approx(3 * p[order[0]])
    assert list(found) == ["good", "base", "same", "bad"]


def test_below_four_arms_each_pair_has_its_own_variance():
    found = rows(a_study({arm: FIVE[arm] for arm in ("base", "good", "same")}))
    for arm in ("good", "same"):
        test = stats.ttest_rel(list(FIVE[arm].values()), list(BASE.values()))
        c = found[arm].comparison
        assert (c.method, c.p) == ("paired t", pytest.approx(test.pvalue))
        assert (c.low, c.high) == pytest.approx(tuple(test.confidence_interval()))


def test_pairs_see_what_unpaired_runs_do_not():
    study = a_study({"base": BASE, "good": {1: 3.281, 2: 3.290, 3: 3.269}})
    assert rows(study)["good"].comparison.words == "better"
    moved = a_study({"base": BASE, "good": {11: 3.281, 12: 3.290, 13: 3.269}})
    c = rows(moved)["good"].comparison
    assert (c.method, c.differences) == ("Welch", {})
    test = stats.ttest_ind([3.281, 3.290, 3.269], list(BASE.values()), equal_var=False)
    assert c.p == pytest.approx(test.pvalue)


def test_a_missing_run_leaves_the_complete_pairs_and_their_number_is_told():
    c = rows(a_study({"base": BASE, "arm": {1: 3.281, 2: 3.295, 9: 9.9}}))["arm"].comparison
    test = stats.ttest_rel([3.281, 3.295], [BASE[1], BASE[2]])
    assert c.method == "paired t"
    assert (c.p, c.difference) == pytest.approx((test.pvalue, -0.017))
    assert list(c.differences) == [(1, 1), (2, 2)]
    assert "3 and 3 runs, 2 complete pairs: only these are compared" in c.notes


def test_one_complete_pair_is_no_pairing():
    c = rows(a_study({"base": BASE, "arm": {1: 3.281, 9: 3.290}}))["arm"].comparison
    assert c.method == "Welch"
    assert "2 and 3 runs, pairs: 1: compared unpaired" in c.notes


@pytest.mark.parametrize("seeds", [(1, 2), (8, 9)])  # paired, unpaired
def test_equal_differences_of_a_counted_metric_give_no_verdict_instead_of_certainty(seeds):
    """Two runs without a spike against two with 1 % each: no p can follow from that."""
    study = a_study({"base": {1: 3.0, 2: 3.0}, "arm": dict.fromkeys(seeds, 3.0)})
    for run in study.runs:
        run.summary["spike_score"] = 1.0 if run.arm == "arm" else 0.0
    c = rows(study, metric="spike_score")["arm"].comparison
    assert (c.call, c.p, c.p_holm) == ("no verdict", None, None)
    assert "no spread" in c.words


def test_one_seed_gives_no_verdict_in_words():
    judgement = judge(a_study({"base": {1: 3.3}, "arm": {1: 2.0}}))
    row = next(r for r in judgement.rows if r.arm == "arm")
    assert row.comparison.words == "no verdict: with one seed, no difference can be told from noise"
    assert (row.std, row.low, row.comparison.p) == (None, None, None)
    assert "No verdict yet: arm" in judgement.headline


def test_identical_runs_are_equivalent():
    c = rows(a_study({"base": BASE, "again": BASE}))["again"].comparison
    assert (c.words, c.p, c.difference) == ("equivalent", 1.0, 0.0)
    assert any("equal to the last bit" in note for note in c.notes)


def test_diverged_run_makes_the_arm_infinite_unless_censored():
    study = changed(a_study(FIVE), "good", 2, status="diverged", summary={"initial_val_loss": 5.5})
    row = rows(study)["good"]
    assert (row.mean, row.n, row.diverged) == (math.inf, 3, 1)
    assert row.comparison.words == "diverged: 1 of 3 runs, so its mean is infinite"
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
def test_unfinished_runs_do_not_count_and_are_noted(status):
    study = changed(a_study(FIVE), "good", 2, status=status)
    row = rows(study)["good"]
    assert (row.n, row.planned) == (2, 3)
    assert "not finished: 1 of 3 runs" in row.comparison.notes


def test_lengths_are_compared_with_the_baseline_of_the_same_length():
    runs = [
        a_run(arm, seed, 3 + gain + seed / 100, steps=n)
        for arm, gain in (("a", 0.0), ("b", -0.1))
        for n in (100, 200)
        for seed in (1, 2)
    ]
    study = by_length(Study("c", runs, "a", None, ["a", "b"]))
    found = rows(study)
    assert found["b @ 200"].comparison.baseline == "a @ 200"
    assert found["a @ 200"].is_baseline
    left = [run for run in study.runs if run.arm != "a @ 200"]
    short = rows(replace(study, runs=left, arms=["a @ 100", "b @ 100", "b @ 200"]))
    assert short["b @ 200"].comparison.call == "refused"


# -------------------------------------------------------------------------- the rules one by one


def test_only_finished_runs_with_a_finite_value_count():
    study = changed(
        a_study({"base": {i: float(i) for i in range(1, 7)}}), "base", 2, status="stopped"
    )
    study = changed(study, "base", 3, summary={"final_val_loss": None})
    study = changed(study, "base", 4, summary={"final_val_loss": math.inf})
    study = changed(study, "base", 5, status="diverged")
    assert values_of(study, "base", "final_val_loss", False) == {
        (1, 1): 1.0,
        (5, 5): math.inf,
        (6, 6): 6.0,
    }
    assert values_of(study, "base", "final_val_loss", True) == {(1, 1): 1.0, (6, 6): 6.0}
    assert values_of(study, "base", "avg_loss", True) == {}


def test_the_baseline_is_not_compared_with_itself_nor_anything_without_one():
    assert set(compare(a_study(FIVE), {arm: {} for arm in FIVE})) == {"good", "bad", "same"}
    assert compare(a_study(FIVE, baseline=None), {arm: {} for arm in FIVE}) == {}


def compared(mine, theirs):
    """Comparison of two arms with these losses by seed."""
    study = a_study({"base": dict.fromkeys(theirs, 3.0), "arm": dict.fromkeys(mine, 3.0)})
    values = {"base": theirs, "arm": mine}
    pairs = {arm: {(seed, seed): x for seed, x in each.items()} for arm, each in values.items()}
    return compare(study, pairs)["arm"]


@pytest.mark.parametrize(
    ("mine", "theirs", "call", "words"),
    [
        (
            {1: 3.0, 2: 3.1},
            {1: math.inf, 2: math.inf, 3: 3.0},
            "no verdict",
            "no verdict: 2 of 3 runs of the baseline base diverged",
        ),
        (
            {1: 3.0, 2: math.inf},
            {1: 3.0, 2: 3.1},
            "diverged",
            "diverged: 1 of 2 runs, so its mean is infinite",
        ),
        ({}, {1: 3.0}, "no verdict", "no verdict: no finished run of this arm"),
        ({1: 3.0}, {}, "no verdict", "no verdict: no finished run of base"),
        (
            {1: 3.0, 2: 3.1},
            {1: 3.0},
            "no verdict",
            "no verdict: with one seed, no difference can be told from noise",
        ),
        (
            {1: 3.0},
            {1: 3.0, 2: 3.1},
            "no verdict",
            "no verdict: with one seed, no difference can be told from noise",
        ),
    ],
)
def test_untestable_arms_have_a_reason_and_no_p(mine, theirs, call, words):
    c = compared(mine, theirs)
    assert (c.baseline, c.call, c.words) == ("base", call, words)
    assert (c.method, c.p, c.p_holm, c.difference, c.bca_low) == (None,) * 5


def test_gaps_of_the_pairs_are_kept_where_they_are_finite():
    c = compared({1: 3.0, 2: math.inf, 4: 2.0}, {1: 3.5, 2: 3.1, 3: 3.0})
    assert c.differences == {(1, 1): -0.5}
    c = compared({1: 3.0, 2: math.inf}, {1: 3.5, 2: math.inf})
    assert c.differences == {(1, 1): -0.5}


def test_two_seeds_on_each_side_are_tested_with_all_numbers_of_the_test():
    mine, theirs = {2: 3.3, 1: 3.1}, {1: 3.15, 2: 3.5}
    c = compared(mine, theirs)
    gaps = [3.1 - 3.15, 3.3 - 3.5]
    assert list(c.differences) == [(1, 1), (2, 2)]
    test = stats.ttest_1samp(gaps, 0.0)
    low, high = test.confidence_interval()
    boot = stats.bootstrap([gaps], np.mean, n_resamples=10_000, rng=np.random.default_rng(0))
    assert (c.baseline, c.method, c.notes) == ("base", "paired t", ())
    assert (c.difference, c.low, c.high) == pytest.approx((np.mean(gaps), low, high))
    assert (c.bca_low, c.bca_high) == pytest.approx(tuple(boot.confidence_interval))
    assert (c.p, c.p_holm) == pytest.approx((test.pvalue, test.pvalue))
    unpaired = compared({1: 3.1, 5: 3.3, 6: 3.2}, theirs)
    boot = stats.bootstrap(
        ([3.1, 3.3, 3.2], [3.15, 3.5]),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        n_resamples=10_000,
        rng=np.random.default_rng(0),
    )
    assert unpaired.method == "Welch"
    assert unpaired.notes == ("3 and 2 runs, pairs: 1: compared unpaired",)
    assert (unpaired.bca_low, unpaired.bca_high) == pytest.approx(tuple(boot.confidence_interval))


def test_note_only_if_all_pairs_are_equal():
    same = compared({1: 3.0, 2: 3.1}, {1: 3.0, 2: 3.1})
    assert same.notes == ("all pairs are equal to the last bit: the same computation",)
    assert (same.bca_low, same.bca_high, same.p) == (None, None, 1.0)
    assert compared({1: 3.0, 2: 3.1}, {1: 3.0, 2: 3.2}).notes == ()


@pytest.mark.parametrize(
    ("p", "difference", "call"),
    [
        (0.0499, -0.1, "better"),
        (0.0499, 0.1, "worse"),
        (0.05, -0.1, "undecided"),
        (0.01, 0.0, "undecided"),
    ],
)
def test_the_call_is_the_sign_of_a_difference_with_p_below_a_twentieth(p, difference, call):
    open_call = Comparison("base", "undecided", difference=difference, p=p, error=0.1, df=2,
                           low=-1.0, high=1.0)  # fmt: skip
    silent = Comparison("base", "refused", "why")
    found = adjusted({"arm": open_call, "other": silent}, 0.0)
    assert (found["arm"].p_holm, found["arm"].call) == (p, call)
    assert found["other"] is silent
    assert open_call.p_holm is None  # the given ones stay as they are


def test_cautions_go_with_every_comparison():
    study = a_study({"base": {1: 3.0, 2: 3.1}, "arm": {1: 3.0, 2: 3.1, 3: 3.2}})
    study = changed(study, "arm", 3, status="stopped")
    told = ("not finished: 1 of 3 runs",)
    values = {"base": {(1, 1): 3.0, (2, 2): 3.2}, "arm": {(1, 1): 3.1, (2, 2): 3.2}}
    assert compare(study, values)["arm"].notes == told
    unproven = changed(study, "base", 1, hashes={})
    assert compare(unproven, values)["arm"].notes[0].endswith("equal starts are not proven")
    assert compare(study, {"base": {}, "arm": {}})["arm"].notes == told
    refused = changed(study, "arm", 1, hashes={"weights": "x", "batches": "b1"})
    assert compare(refused, values)["arm"] == Comparison(
        "base",
        "refused",
        "initial weights differ for seed 1 (base w1, arm x)",
        notes=told,
    )


def test_tested_leaves_the_call_open():
    pairs = {(1, 1): 3.0, (2, 2): 3.2}
    c = verdict.tested("base", pairs, {pair: 2 * x for pair, x in pairs.items()}, ("a note",))
    assert (c.baseline, c.call, c.words, c.p_holm) == ("base", "undecided", "undecided", None)
    assert c.notes == ("a note",)


def test_an_arm_without_a_baseline_of_its_length_says_which_one_is_missing():
    runs = [a_run(arm, 1, 3.0, steps=n) for arm, n in (("a", 100), ("b", 100), ("b", 200))]
    study = by_length(Study("c", runs, "a", None, ["a", "b"]))
    c = compare(study, {arm: {} for arm in study.arms})["b @ 200"]
    assert (c.baseline, c.call, c.words) == (
        "a",
        "refused",
        "refused: a was not trained for the same number of updates",
    )


# ------------------------------------------------------------------------------- second edition


def test_equivalent_is_a_difference_surely_within_the_smallest_that_matters():
    """By hand: mean 0.0002, std 0.0002, n = 3: the 90 % interval reaches 0.00054."""
    gaps = {1: 0.0000, 2: 0.0002, 3: 0.0004}
    study = a_study({"base": BASE, "arm": {seed: BASE[seed] + gap for seed, gap in gaps.items()}})
    half = stats.t.ppf(0.95, 2) * 0.0002 / math.sqrt(3)
    assert 0.0002 + half == pytest.approx(0.000537, abs=1e-6)
    for smallest, call in ((0.00054, "equivalent"), (0.00053, "undecided"), (0.0, "undecided")):
        assert rows(replace(study, smallest=smallest))["arm"].comparison.call == call
    seconds = [replace(r, summary=r.summary | {"train_seconds": r.final_loss}) for r in study.runs]
    timed = rows(replace(study, runs=seconds), metric="train_seconds")
    assert timed["arm"].comparison.call == "undecided"  # nats say nothing of seconds


def test_joint_interval_excludes_zero_just_where_an_arm_is_better_or_worse():
    for row in rows(a_study(FIVE)).values():
        if c := row.comparison:
            assert (c.joint_low > 0 or c.joint_high < 0) == (c.call in ("better", "worse"))
            assert c.joint_low <= c.low < c.high <= c.joint_high
            half = stats.t.isf(0.9 * 0.025 / 3, c.df) * c.error  # Bonferroni
            assert (c.joint_low, c.joint_high) == pytest.approx(
                (c.difference - half, c.difference + half)
            )


def test_joint_interval_ends_at_zero_where_a_later_step_of_holm_decides():
    """Two arms: the second is called at p < 0.05, its Bonferroni interval contains zero."""
    gaps = {"first": (0.1, 0.101, 0.099), "second": (-0.05, -0.028, -0.039)}
    arms = {arm: {seed: 3 + gap for seed, gap in enumerate(each)} for arm, each in gaps.items()}
    found = rows(a_study({"base": dict.fromkeys(range(3), 3.0), **arms}))
    c = found["second"].comparison
    assert 0.025 / 2 < c.p / 2 < 0.05 / 2
    assert (c.call, c.joint_high) == ("better", 0.0)
    half = stats.t.isf(0.025 / 2, 2) * c.error
    assert c.joint_low == pytest.approx(c.difference - half)
    assert c.difference + half > 0
