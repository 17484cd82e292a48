"""Ranks: which arms are shown better and worse by tests of all pairs, against other packages."""

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from report.judgement import judge
from report.ranks import ranking
from report.statistics import TextPart
from report.verdict import compare, values_of
from tests.report.studies import FIVE, a_study, changed, rows


def test_ranks_count_the_arms_shown_better_and_worse():
    judgement = judge(a_study(FIVE))
    placed = {row.arm: row.ranks for row in judgement.rows}
    assert placed == {"good": (1, 1), "base": (2, 3), "same": (2, 3), "bad": (4, 4)}
    assert judgement.best == ("good",)
    diverged = changed(a_study(FIVE), "good", 2, status="diverged")
    placed = {row.arm: row.ranks for row in judge(diverged).rows}
    assert placed == {"good": None, "base": (1, 2), "same": (1, 2), "bad": (3, 3)}


@pytest.mark.parametrize(("sign", "call"), [(1, "worse"), (-1, "better")])
def test_who_a_moderated_t_shows_worse_is_not_the_first(sign, call):
    """The pairs alone do not show it: six tests instead of three."""
    base = np.array([3.300, 3.310, 3.290])
    noise = sign * 1e-3 * np.array([[0, 0, 0], [1, -5, 3], [-3, 2, 1], [3, -2, -1]])
    finals = dict(zip(("base", "a", "b", "arm"), base + noise, strict=True))
    finals["arm"] += sign * 0.0075
    found = rows(a_study({arm: dict(enumerate(x)) for arm, x in finals.items()}))
    assert (found["arm"].comparison.method, found["arm"].comparison.call) == ("moderated t", call)
    p = found["arm"].comparison.p
    assert 3 * p < 0.05 < 6 * p
    beaten = "arm" if sign == 1 else "base"
    places = {arm: row.ranks for arm, row in found.items()}
    assert places == dict.fromkeys(finals, (1, 4)) | {beaten: (2, 4)}


def test_by_welchs_t_the_verdicts_do_not_shape_ranks():
    """Verdicts and pairs together would err in more than 5 % of contests."""
    base = np.array([3.300, 3.310, 3.290, 3.305, 3.295])
    finals = {"base": base, "a": base, "b": base, "bad": base + 0.016}
    own = {arm: dict(enumerate(x, 10 * i)) for i, (arm, x) in enumerate(finals.items())}
    bad = rows(a_study(own))["bad"]
    assert (bad.comparison.method, bad.comparison.call) == ("Welch", "worse")
    assert bad.ranks == (1, 4), "no pair is called by Holm over all six"


def ranks_of(losses):
    """Ranks of arms with seeds of their own: Welch's t of scipy, Holm of statsmodels."""
    pairs = list(itertools.combinations(losses, 2))
    tests = [stats.ttest_ind(losses[a], losses[b], equal_var=False) for a, b in pairs]
    shown = multipletests([test.pvalue for test in tests], 0.05, "holm")[0]
    found = {arm: [1, len(losses)] for arm in losses}
    for (a, b), test, is_shown in zip(pairs, tests, shown, strict=True):
        if is_shown:
            first, second = (a, b) if test.statistic < 0 else (b, a)
            found[second][0] += 1
            found[first][1] -= 1
    return {arm: tuple(places) for arm, places in found.items()}


@pytest.mark.parametrize("number", range(8))
def test_unpaired_ranks_agree_with_scipy_and_statsmodels(number):
    rng = np.random.default_rng(number)
    losses = {
        f"arm{i}": 3 + mean + 0.01 * rng.standard_normal(4)
        for i, mean in enumerate(rng.choice([0.0, 0.02, 0.05], 5))
    }
    study = a_study({arm: dict(enumerate(x, 4 * i)) for i, (arm, x) in enumerate(losses.items())})
    assert {row.arm: row.ranks for row in judge(study).rows} == ranks_of(losses)


def placed(study, smallest=0.0, texts=None):
    values = {arm: values_of(study, arm, "final_val_loss", False) for arm in study.arms}
    return ranking(study, values, compare(study, values, smallest, texts), smallest, texts)


def test_pairs_that_are_equivalent_are_known_in_both_orders():
    study = a_study({
        "base": {1: 3.3000, 2: 3.3100, 3: 3.2900},
        "twin": {1: 3.3001, 2: 3.3102, 3: 3.2901},
        "far": {1: 3.2000, 2: 3.2101, 3: 3.1902},
    })  # fmt: skip
    found = placed(study, 0.005)
    assert found.equivalent == {("base", "twin")}
    assert found.all_equivalent(["twin", "base"])
    assert not found.all_equivalent(["twin", "base", "far"])
    assert placed(study).equivalent == frozenset(), "0 turns it off"


def test_arms_with_one_run_or_an_infinite_mean_have_no_rank():
    finals = {"base": {1: 3.3, 2: 3.31}, "arm": {1: 3.2, 2: 3.2101}, "one": {1: 3.0}}
    assert set(placed(a_study(finals)).ranks) == {"base", "arm"}
    finals["one"] = {1: 3.0, 2: 3.0}
    diverged = changed(a_study(finals), "one", 2, status="diverged")
    assert set(placed(diverged).ranks) == {"base", "arm"}


def test_groups_that_no_test_connects_are_ranked_apart():
    finals = {
        "base": {1: 3.30, 2: 3.31, 3: 3.29},
        "arm": {1: 3.2001, 2: 3.2100, 3: 3.1902},
        "own": {1: 3.10, 2: 3.11, 3: 3.09},
        "other": {1: 3.0001, 2: 3.0100, 3: 2.9902},
    }
    study = a_study(finals)
    values = {arm: values_of(study, arm, "final_val_loss", False) for arm in study.arms}
    comparisons = compare(a_study(finals, against={"other": "own"}), values)
    del comparisons["own"]
    found = ranking(study, values, comparisons, 0.0)
    assert found.ranks == {"base": (2, 2), "arm": (1, 1), "own": (2, 2), "other": (1, 1)}


def test_a_pair_whose_text_is_unknown_is_not_tested_where_the_text_is_random():
    study = a_study(FIVE, random_text=True)
    sure = TextPart(1e-6, 7)
    texts = {frozenset(pair): sure for pair in itertools.combinations(FIVE, 2)}
    known = placed(study, texts=texts)
    assert known.ranks == placed(a_study(FIVE)).ranks
    found = placed(study, texts=texts | {frozenset(("good", "bad")): "unknown"})
    assert found.ranks == known.ranks | {"good": (1, 2), "bad": (3, 4)}
