"""Which held-out text decides, and the interval over seeds and text."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats

from record import sequences
from report import statistics
from report.folders import Place, read_run
from report.judgement import judge
from report.seeds_and_text import seeds_and_text
from report.sources import read
from report.statistics import TextPart, paired_t
from report.tables import sections
from report.text import over_text, text_part
from report.wandb_runs import _lines
from tests.report.contest_folder import configuration, curve, write_contest, write_run
from tests.report.studies import BASE, FIVE, a_study, changed, rows


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


# ---- seeds and text ----


def measured(study, effects, *, of_text, sequences=64, rng=None, split="test"):
    """The study with losses by sequence: the run's own, the arm's on each part of the text."""
    rng = rng or np.random.default_rng(1)
    text = {arm: of_text * rng.normal(size=sequences) for arm in study.arms}
    runs = []
    for run in study.runs:
        own = effects[run.arm][run.seed] + text[run.arm] + 0.001 * rng.normal(size=sequences)
        losses = own.astype(np.float32)
        summary = run.summary | {f"final_{split}_loss": float(losses.mean(dtype=float))}
        runs.append(replace(run, summary=summary, sequences={split: losses}))
    return replace(study, runs=runs)


TWO = {"base": BASE, "arm": {seed: loss - 0.02 + 1e-4 * seed for seed, loss in BASE.items()}}


def test_error_of_the_text_is_that_of_an_analysis_of_variance():
    """Against statsmodels: mean squares of seeds and blocks as two factors."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, 1)) + 2 * rng.normal(size=(1, 8)) + 0.5 * rng.normal(size=(4, 8))
    seed, block = np.indices(x.shape)
    frame = pd.DataFrame({"x": x.ravel(), "seed": seed.ravel(), "block": block.ravel()})
    fit = smf.ols("x ~ C(seed) + C(block)", frame).fit()
    squares = sm.stats.anova_lm(fit)["mean_sq"]
    expected = (squares["C(block)"] - squares["Residual"]) / 4 / 8
    part = text_part(x)
    assert part.error == pytest.approx(expected**0.5)
    assert part.df == 7
    neighbours = text_part(np.repeat(x, 5, axis=1))  # five sequences that are one document
    assert neighbours == pytest.approx(part)


def test_text_without_an_effect_leaves_the_interval_over_seeds():
    x = np.random.default_rng(4).normal(size=(3, 1)) + np.zeros((3, 32))
    assert text_part(x).error == 0
    test = paired_t(x.mean(axis=1))
    wide = over_text(test, text_part(x))
    assert (wide.low, wide.high) == pytest.approx((test.low, test.high))
    assert wide.p == pytest.approx(test.p)


@pytest.mark.parametrize("difference", [0.01, 0.5, -3.0, 40.0])
def test_a_second_way_to_be_shown_widens_over_text_as_the_first(difference):
    own = statistics.OwnSpread(0.2, 4)
    test = statistics.t_test(difference, 1.0, 8, own)
    part = TextPart(0.7, 15)
    wide = over_text(test, part)
    ways = [(0.9, 1.0, 8), (0.1, 0.2, 4)]
    half = min(stats.t(df).isf(share * 0.025) * error for share, error, df in ways)
    half = np.hypot(half, 0.7 * stats.t(15).isf(0.025))
    assert (wide.low, wide.high) == pytest.approx((difference - half, difference + half))
    assert wide.p >= test.p
    assert (wide.p == 1) == (difference == 0.01)  # which lies within any interval
    if wide.p < 1:
        assert min(map(abs, wide.interval(wide.p))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("difference", [0.0, 0.5, -3.0, 40.0])
def test_interval_over_text_ends_at_zero_at_the_level_of_its_p_value(difference):
    wide = over_text(statistics.Test(difference, 0, 0, 1.0, error=1.0, df=2), TextPart(0.7, 15))
    t, t_text = stats.t(2).isf(0.025), stats.t(15).isf(0.025)
    half = np.sqrt(t**2 + (0.7 * t_text) ** 2)
    assert (wide.low, wide.high) == pytest.approx((difference - half, difference + half))
    if difference:
        assert min(map(abs, wide.interval(wide.p))) == pytest.approx(0, abs=1e-6)
    else:
        assert wide.p == 1


def test_a_fixed_text_decides_over_seeds_and_shows_the_other_interval_beside():
    study = measured(a_study(TWO), TWO, of_text=0.5)
    row = rows(study)["arm"]
    c = row.comparison
    assert c.call == "better"
    gaps = paired_t(list(c.differences.values()))
    assert (c.low, c.high, c.p) == pytest.approx((gaps.low, gaps.high, gaps.p))
    assert c.over_text.low < c.low < c.high < 0 < c.over_text.high
    section = seeds_and_text(judge(study))
    (line,) = section.tables[0].rows
    assert line[0].text == "arm"
    assert line[3].startswith("[−")
    assert "+" in line[3]
    assert "interval over seeds decides" in section.text


def test_a_random_text_decides_over_both():
    study = measured(a_study(TWO, random_text=True), TWO, of_text=0.5)
    judgement = judge(study)
    (c,) = [row.comparison for row in judgement.rows if row.comparison]
    assert c.call == "undecided"
    assert (c.low, c.high, c.p) == (c.over_text.low, c.over_text.high, c.over_text.p)
    assert c.joint_low == pytest.approx(c.low)
    assert {row.ranks for row in judgement.rows} == {(1, 2)}
    assert "interval over seeds and text decides" in seeds_and_text(judgement).text
    little = judge(measured(a_study(TWO, random_text=True), TWO, of_text=0.001))
    assert {row.arm: row.ranks for row in little.rows} == {"arm": (1, 1), "base": (2, 2)}
    assert little.best == ("arm",)


def test_a_random_text_has_no_verdict_where_losses_by_sequence_are_missing():
    study = measured(a_study(TWO, random_text=True), TWO, of_text=0.5)
    study = changed(study, "arm", 2, sequences={})
    judgement = judge(study)
    (c,) = [row.comparison for row in judgement.rows if row.comparison]
    why = "1 of 6 runs have no losses by sequence"
    assert c.words == f"no verdict: for other texts too, as the contest asks: {why}"
    fixed = judge(replace(study, random_text=False))
    assert [row.comparison.call for row in fixed.rows if row.comparison] == ["better"]
    assert seeds_and_text(fixed).lines == ["arm: 1 of 6 runs have no losses by sequence"]


def test_old_runs_have_no_interval_over_text_and_say_why():
    judgement = judge(a_study(TWO))
    assert seeds_and_text(judgement).lines == ["arm: 6 of 6 runs have no losses by sequence"]


@pytest.mark.parametrize(
    ("lengths", "why"),
    [((64, 32), "different numbers of sequences"), ((1, 1), "one sequence was evaluated")],
)
def test_texts_that_cannot_be_taken_apart_are_named(lengths, why):
    study = measured(a_study(TWO), TWO, of_text=0.1)
    runs = [
        replace(r, sequences={"test": r.sequences["test"][: lengths[r.arm == "arm"]]})
        for r in study.runs
    ]
    assert why in rows(replace(study, runs=runs))["arm"].comparison.why_no_text


def test_interval_over_seeds_and_text_covers_a_known_difference():
    """Documents of 40 sequences, three seeds: 95 %, where one over seeds covers less than 80 %."""
    rng, covered, over_seeds, contests = np.random.default_rng(5), 0, 0, 1000
    for _ in range(contests):
        document = np.repeat(rng.normal(size=26), 40)[rng.integers(40) :][:960]
        x = 0.1 * rng.normal(size=(3, 1)) + 0.5 * document + rng.normal(size=(3, 960))
        test = paired_t(x.mean(axis=1))
        low, high = test._replace(text=text_part(x)).interval(0.05)
        covered += low <= 0 <= high
        over_seeds += test.low <= 0 <= test.high
    assert covered / contests > 0.95 - 2 * (0.95 * 0.05 / contests) ** 0.5
    assert over_seeds / contests < 0.85


def test_losses_that_are_damaged_or_not_the_runs_own_are_a_problem_of_it(tmp_path):
    folder = tmp_path / "run"
    final = write_run(folder, configuration("wsd", 1), curve(1, 40, 0.0))["final_val_loss"]
    sequences.write(folder, {"val": np.array([final - 0.1, final + 0.1], np.float32)})
    run = read_run(Place(folder))
    assert (len(run.sequences["val"]), run.problems) == (2, ())
    sequences.write(folder, {"val": np.array([final, final + 0.1], np.float32)})
    run = read_run(Place(folder))
    assert run.sequences == {}
    assert run.problems == ("sequences.npz: val contradicts its final loss and is left out",)
    (folder / sequences.FILE).write_bytes(b"torn")
    run = read_run(Place(folder))
    assert run.sequences == {}
    assert "sequences.npz is damaged" in run.problems[0]


def test_the_plan_says_whether_the_text_is_random(tmp_path):
    home = write_contest(tmp_path / "c", {"a": 0.0, "b": 0.1})
    assert not read([str(home)]).random_text
    plan = json.loads((home / "plan.json").read_text())
    (home / "plan.json").write_text(json.dumps(plan | {"text": "random"}))
    assert read([str(home)]).random_text
