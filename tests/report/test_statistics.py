"""Statistics against scipy, statsmodels, closed forms and published check values."""

import math

import numpy as np
import pytest
from scipy import stats

from report.statistics import (
    bca,
    block_length,
    block_means,
    detectable,
    holm,
    needed,
    paired_t,
    pooled_std,
    resampled,
    t_interval,
    welch_t,
)

A = [3.281, 3.279, 3.284, 3.277]
B = [3.290, 3.285, 3.291, 3.288]


def test_interval_of_a_mean_is_the_closed_form():
    low, high = t_interval(A)
    half = 3.182446305 * np.std(A, ddof=1) / 2  # t table: 97.5 %, 3 degrees of freedom
    assert (low, high) == (
        pytest.approx(np.mean(A) - half, abs=1e-8),
        pytest.approx(np.mean(A) + half, abs=1e-8),
    )
    assert t_interval([3.28]) is None


def test_paired_t_is_scipy_on_the_pairs():
    result = paired_t(np.subtract(A, B))
    expected = stats.ttest_rel(A, B)
    assert result.p == pytest.approx(expected.pvalue, rel=1e-12)
    assert (result.low, result.high) == pytest.approx(tuple(expected.confidence_interval()))
    d = np.subtract(A, B)
    t = d.mean() / (d.std(ddof=1) / math.sqrt(len(d)))
    assert result.p == pytest.approx(2 * stats.t.sf(abs(t), len(d) - 1), rel=1e-12)


def test_welch_is_the_closed_form():
    result = welch_t(A, B[:3])
    va, vb = np.var(A, ddof=1) / 4, np.var(B[:3], ddof=1) / 3
    df = (va + vb) ** 2 / (va**2 / 3 + vb**2 / 2)
    difference = np.mean(A) - np.mean(B[:3])
    assert result.difference == pytest.approx(difference)
    assert result.p == pytest.approx(2 * stats.t.sf(abs(difference) / math.sqrt(va + vb), df))
    half = stats.t.ppf(0.975, df) * math.sqrt(va + vb)
    assert (result.low, result.high) == pytest.approx((difference - half, difference + half))


@pytest.mark.parametrize(("d", "p"), [([0.0] * 3, 1.0), ([0.5] * 3, 0.0)])
def test_differences_without_spread(d, p):
    assert paired_t(d) == (d[0], d[0], d[0], p)
    assert bca([d]) is None
    assert welch_t([1 + d[0]] * 3, [1.0] * 3).p == p


def test_one_value_has_no_test():
    assert paired_t([0.1]) is welch_t([1.0], [2.0, 3.0]) is bca([[0.1]]) is None


def test_bca_covers_like_the_t_interval_on_many_normal_values():
    x = np.random.default_rng(1).normal(0.3, 1.0, 200)
    interval, t = bca([x]), t_interval(x)
    assert interval.low == pytest.approx(t.low, abs=0.015)
    assert interval.high == pytest.approx(t.high, abs=0.015)
    assert bca([x]) == interval  # the same report twice
    y = np.random.default_rng(2).normal(0, 1, 150)
    both, welch = bca([x, y]), welch_t(x, y)
    assert both == pytest.approx((welch.low, welch.high), abs=0.02)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 9])
def test_holm_is_the_step_down_of_its_definition(n):
    """A few cases only: statsmodels collects garbage at every call, in tenths of a second."""
    p = np.random.default_rng(n).uniform(0, 0.4, n).tolist()
    adjusted, highest = [0.0] * n, 0.0
    for rank, i in enumerate(sorted(range(n), key=p.__getitem__)):
        highest = max(highest, min(1.0, (n - rank) * p[i]))
        adjusted[i] = highest
    assert holm(p) == pytest.approx(adjusted)


@pytest.mark.parametrize(
    ("sigma", "n", "difference"),
    [(0.0011, 3, 0.0033), (0.0011, 5, 0.0022), (0.0011, 10, 0.0015), (0.0025, 5, 0.0051)],
)
def test_planner_check_values(sigma, n, difference):
    found = detectable(sigma, n, paired=False)
    assert found == pytest.approx(difference, abs=1.0e-4)
    assert needed(sigma, found * 1.0001, paired=False) == n


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_detectable_difference_has_eighty_percent_power(n, paired):
    """Power from the noncentral t distribution, without statsmodels."""
    effect = detectable(1.0, n, paired=paired)
    df, shift = (n - 1, effect * math.sqrt(n)) if paired else (2 * n - 2, effect * math.sqrt(n / 2))
    limit = stats.t.ppf(0.975, df)
    power = stats.nct.sf(limit, df, shift) + stats.nct.cdf(-limit, df, shift)
    assert power == pytest.approx(0.8, abs=2e-4)


def test_needed_at_the_edges():
    assert needed(1.0, 1000.0, paired=True) == 2
    assert needed(0.0, 0.1, paired=True) == 2
    assert needed(1.0, 0.0, paired=False) is None
    assert needed(1.0, 1e-6, paired=False) is None
    assert detectable(1.0, 1, paired=False) is None


def test_pooled_std_weighs_by_degrees_of_freedom():
    expected = math.sqrt((3 * np.var(A, ddof=1) + 1 * np.var(B[:2], ddof=1)) / 4)
    assert pooled_std([A, B[:2], [7.0]]) == pytest.approx(expected)
    assert pooled_std([[1.0], []]) is None


def test_resamples_are_seeds_with_replacement_and_pairs_are_drawn_together():
    arm, base = resampled((3, 3), np.random.default_rng(0), paired=True)
    assert arm is base
    assert np.allclose(arm.sum(axis=1), 1)
    assert arm.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.01)
    arm, base = resampled((3, 5), np.random.default_rng(0), paired=False)
    assert (arm.shape[1], base.shape[1]) == (3, 5)


def ar1(rho, n, seed=0):
    noise, x = np.random.default_rng(seed).standard_normal(n), np.zeros(n)
    for t in range(1, n):
        x[t] = rho * x[t - 1] + noise[t]
    return x


def test_block_bootstrap_knows_that_neighbours_resemble_each_other():
    n, rho = 4000, 0.9
    rng = np.random.default_rng(0)
    true = 1 / (1 - rho) / math.sqrt(n)  # std of the mean of an AR(1) series
    spreads = [np.std(block_means(ar1(rho, n, seed), rng)) for seed in range(8)]
    assert np.mean(spreads) == pytest.approx(true, rel=0.2)
    naive = np.std(ar1(rho, n)) / math.sqrt(n)
    assert naive < 0.4 * true


def test_block_bootstrap_of_independent_values_is_the_ordinary_one():
    x = np.random.default_rng(3).standard_normal(3000)
    assert np.std(block_means(x, np.random.default_rng(0))) == pytest.approx(
        np.std(x) / math.sqrt(3000), rel=0.12
    )
    assert block_length(np.ones(100)) == 1
    assert block_means(np.ones(50), np.random.default_rng(0)) == pytest.approx(np.ones(2000))
