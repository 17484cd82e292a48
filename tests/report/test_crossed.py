"""Runs that share seeds: variances against statsmodels and simulations, the level of the test."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from report.crossed import grid, is_crossed, mean_test, split, table, two_way_t
from report.judgement import judge
from report.statistics import paired_t
from report.study import Study
from report.tables import sections
from report.variance import variances
from tests.report.studies import BASE, a_run, a_study, rows


def tables(shape, stds, count, rng):
    """Tables of losses with known std of seeds, data and rest, shape (count, a, b)."""
    a, b = shape
    return (
        stds[0] * rng.standard_normal((count, a, 1))
        + stds[1] * rng.standard_normal((count, 1, b))
        + stds[2] * rng.standard_normal((count, a, b))
    )


def test_mean_squares_are_those_of_an_analysis_of_variance():
    x = np.random.default_rng(0).normal(3, 1, (4, 3))
    i, j = np.indices(x.shape)
    frame = pd.DataFrame({"x": x.ravel(), "i": i.ravel(), "j": j.ravel()})
    squares = anova_lm(ols("x ~ C(i) + C(j)", frame).fit())["mean_sq"]
    rest = squares["Residual"]
    found = split(x)
    assert found == pytest.approx(
        ((squares["C(i)"] - rest) / 3, (squares["C(j)"] - rest) / 4, rest)
    )


@pytest.mark.parametrize("stds", [(3.0, 1.0, 0.5), (0.0, 2.0, 1.0), (1.0, 1.0, 0.0)])
def test_variances_are_found_again_in_a_simulation(stds):
    each = [split(x) for x in tables((4, 3), stds, 3000, np.random.default_rng(1))]
    assert np.mean(each, axis=0) == pytest.approx(np.square(stds), abs=0.04 * sum(stds) ** 2)


@pytest.mark.parametrize("shape", [(3, 3), (5, 2)])
@pytest.mark.parametrize("stds", [(1, 0, 1e-6), (0, 1, 0.3), (1, 1, 1)])
def test_no_more_than_one_in_twenty_tables_without_a_difference_is_called(shape, stds):
    count = 1000
    drawn = tables(shape, stds, count, np.random.default_rng(2))
    called = np.mean([two_way_t(x).p < 0.05 for x in drawn])
    assert called <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / count)


def test_cells_taken_for_independent_would_call_far_more():
    """What the test is for."""
    drawn = tables((3, 3), (1, 1, 0.3), 500, np.random.default_rng(3))
    assert np.mean([stats.ttest_1samp(x.ravel(), 0).pvalue < 0.05 for x in drawn]) > 0.2


def test_interval_and_p_agree_and_are_those_of_the_formula():
    x = np.array([[1.0, 2.0, 4.0], [2.0, 2.5, 5.5], [0.0, 1.5, 3.0]])
    test = two_way_t(x)
    rows, columns = x.mean(1), x.mean(0)
    a, b = 3 * rows.var(ddof=1), 3 * columns.var(ddof=1)
    rest = ((x - rows[:, None] - columns + x.mean()) ** 2).sum() / 4
    assert test.error == pytest.approx(np.sqrt((a + b - rest) / 9))
    assert test.p == pytest.approx(2 * stats.t.sf(x.mean() / test.error, 2))
    ends = x.mean() + test.error * stats.t.ppf([0.025, 0.975], 2)
    assert (test.low, test.high) == pytest.approx(tuple(ends))


def test_variance_is_no_less_than_that_of_one_source():
    """Where seeds and data seem to cancel, the estimate would be near zero, or below it."""
    x = np.array([[1.0, -1.0], [-1.0, 1.0]]) + 3
    assert two_way_t(x).error == pytest.approx(np.sqrt(4 / 4))


def test_pairs_of_seeds_that_all_differ_are_an_ordinary_paired_t():
    for pairs in ([(1, 1), (2, 2), (3, 3)], [(1, 1), (2, 1), (3, 1)], [(1, 1), (1, 2), (1, 3)]):
        assert not is_crossed(pairs)
        assert mean_test(dict(zip(pairs, [0.1, 0.2, 0.4], strict=True))) == paired_t(
            [0.1, 0.2, 0.4]
        )
    assert is_crossed([(1, 1), (1, 2), (2, 1)])
    assert is_crossed([(1, 1), (2, 2), (2, 3)])


def test_hole_in_the_table_costs_as_little_as_it_can():
    pairs = [(i, j) for i in (1, 2, 3) for j in (7, 8)]
    values = {pair: float(n) for n, pair in enumerate(pairs)}
    assert grid(values) == ([1, 2, 3], [7, 8])
    del values[2, 8]
    assert grid(values) == ([1, 3], [7, 8])
    assert table(values).tolist() == [[0, 1], [4, 5]]
    assert mean_test(values) == two_way_t(np.array([[0.0, 1.0], [4.0, 5.0]]))


def test_nothing_to_test_with():
    assert two_way_t(np.zeros((2, 2))).p == 1
    assert mean_test({(1, 1): 0.5}) is None


def test_section_splits_the_spread_of_losses_and_of_differences():
    """The seeds' part is shared by both arms, so it is in their losses and in no difference."""
    rng, runs = np.random.default_rng(4), []
    seeds, data = rng.normal(0, 0.05, 20), rng.normal(0, 0.02, 20)
    own = rng.normal(0, 0.01, (2, 20))  # what the data does to one arm only
    for (i, j), (k, arm) in product(product(range(20), repeat=2), enumerate(("base", "arm"))):
        final = 3.3 + seeds[i] + data[j] + own[k, j]
        hashes = {"weights": f"w{i}", "batches": f"b{j}"}
        runs.append(a_run(arm, i, final, data_seed=j, hashes=hashes))
    section = variances(judge(Study("c", runs, "base", None, ["base", "arm"])))
    assert section.text.startswith("Standard deviations of the final val loss, by the method")
    of_loss, of_difference = section.tables
    for arm in of_loss.rows:
        assert [float(x) for x in arm[1:4]] == pytest.approx([0.05, 0.022, 0], abs=0.015)
        assert arm[4] == "20 x 20"
    (line,) = of_difference.rows
    assert [float(x) for x in line[1:4]] == pytest.approx([0, 0.014, 0], abs=0.006)
    assert variances(judge(a_study({"base": {1: 3.0, 2: 3.1}, "arm": {1: 3.0, 2: 3.2}}))) is None


# --------------------------------------------------------------------------------------- verdicts

SHARED = {1: 0.0, 2: 0.04, 3: -0.03}  # what a seed of the weights adds to a difference
OWN = {7: 0.01, 8: -0.02, 9: 0.02}  # and one of the data


def crossed_study(without=()):
    """Two arms, three seeds crossed with three data seeds; the second is 0.05 better."""
    runs = []
    for seed, data in product(SHARED, OWN):
        gap = SHARED[seed] + OWN[data] - 0.05 + 0.001 * (seed * data % 3)
        for arm, loss in (("base", 3.3), ("arm", 3.3 + gap)):
            hashes = {"weights": f"w{seed}", "batches": f"b{data}"}
            if (arm, seed, data) not in without:
                runs.append(a_run(arm, seed, loss, data_seed=data, hashes=hashes))
    return Study("c", runs, "base", None, ["base", "arm"])


def test_crossed_seeds_are_not_taken_for_independent_runs():
    """All nine pairs as independent would be better with p = 0.007."""
    c = rows(crossed_study())["arm"].comparison
    gaps = np.array([*c.differences.values()]).reshape(3, 3)
    assert stats.ttest_1samp(gaps.ravel(), 0).pvalue < 0.01
    assert (c.method, c.words, c.df) == ("two-way t", "undecided", 2)
    assert c.p == two_way_t(gaps).p > 0.05
    assert (c.bca_low, c.bca_high) == (None, None)
    assert any("3 seeds x 3 data seeds, crossed" in note for note in c.notes)
    mean = rows(crossed_study())["arm"]
    assert mean.high - mean.low > 2 * 0.04, "nor are they in the interval of the arm's own mean"


def test_missing_run_of_a_crossed_contest_is_said():
    c = rows(crossed_study({("arm", 2, 8), ("base", 2, 8)}))["arm"].comparison
    assert (c.method, c.df) == ("two-way t", 1)
    assert any("2 seeds x 3 data seeds" in n and "2 pairs outside" in n for n in c.notes)


def test_one_order_of_the_data_for_all_runs_is_said():
    runs = [
        a_run(arm, seed, loss + shift, data_seed=1, hashes={"weights": f"w{seed}", "batches": "b"})
        for seed, loss in BASE.items()
        for arm, shift in (("base", 0.0), ("arm", -0.02 + 0.001 * seed))
    ]
    c = rows(Study("c", runs, "base", None, ["base", "arm"]))["arm"].comparison
    assert (c.method, c.call) == ("paired t", "better")
    assert "all runs have the same data, in one order: the verdict is for these" in c.notes


def test_the_planner_of_a_crossed_contest_says_that_crossed_seeds_show_less():
    study = crossed_study()
    assert "as many runs of crossed seeds show less" in report_of(study)["planner"].text
    alone = a_study({"base": BASE, "arm": {1: 3.2, 2: 3.22, 3: 3.19}})
    assert "crossed" not in report_of(alone)["planner"].text


def report_of(study):
    return {each.id: each for each in sections(study, judge(study), "python -m report")}
