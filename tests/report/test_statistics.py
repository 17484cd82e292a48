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


def test_no_difference_at_all_is_certain_and_equal_differences_cannot_be_tested():
    assert paired_t([0.0] * 3) == (0.0, 0.0, 0.0, 1.0, 0.0, 2)
    assert welch_t([1.0] * 3, [1.0] * 3) == (0.0, 0.0, 0.0, 1.0, 0.0, 4)
    assert paired_t([0.5] * 3) is welch_t([1.5] * 3, [1.0] * 3) is bca([[0.5] * 3]) is None
    assert paired_t([0.3 - 0.1, 0.2, 0.5 - 0.3]) is None  # equal but for rounding


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
    assert needed(1.0, 0.04, paired=False) == pytest.approx(9811, abs=3)  # 2 (1.96 + 0.84)² / d²
    assert needed(1.0, 0.0375, paired=False) is None  # 11,164
    assert detectable(1.0, 1, paired=False) is None
    assert needed(None, 0.1, paired=True) is detectable(None, 5, paired=True) is None


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


# ------------------------------------------------------- where each of them begins, what it keeps


def test_two_values_are_enough_for_every_test():
    a, b = [3.1, 3.3], [3.2, 3.25]
    low, high = t_interval(a)
    assert (low, high) == pytest.approx((3.2 - 12.7062047364 * 0.1, 3.2 + 12.7062047364 * 0.1))
    assert paired_t(np.subtract(a, b)).p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert welch_t(a, b).p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert bca([a]) == (3.1, 3.3)


def test_difference_is_the_mean_of_the_pairs():
    assert paired_t(np.subtract(A, B)).difference == pytest.approx(np.mean(A) - np.mean(B))


def test_a_side_without_spread_is_tested_and_two_are_not():
    flat, spread = [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]
    difference, low, high, p, *_ = welch_t(flat, spread)
    half = stats.t.ppf(0.975, 2) / math.sqrt(3)  # the variance and the freedom of the other side
    assert (difference, low, high) == pytest.approx((-1, -1 - half, -1 + half))
    assert p == pytest.approx(2 * stats.t.sf(math.sqrt(3), 2))
    assert welch_t([2.5] * 2, flat) is None


def test_single_precision_is_computed_in_double():
    a, b = np.float32(A), np.float32(B)
    exact, other = a.astype(np.float64), b.astype(np.float64)
    assert t_interval(a) == t_interval(exact)
    assert paired_t(a - np.float32(3)) == paired_t((a - np.float32(3)).astype(np.float64))
    assert welch_t(a, b) == welch_t(exact, other)
    assert bca([a]) == bca([exact])
    assert pooled_std([a, b]) == pooled_std([exact, other])


def test_bca_is_scipys_of_ten_thousand_resamples_with_seed_zero():
    expected = stats.bootstrap(
        (A, B),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        n_resamples=10_000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert bca([A, B]) == (expected.low, expected.high)


def test_bca_is_not_defined_for_one_value_or_an_infinite_spread():
    assert bca([[1.0], [2.0, 3.0]]) is None
    assert bca([[1e300, -1e300, 0.0]]) is None
    assert bca([[0.0, 1.0]]) is not None  # a range of exactly 1 is a spread


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("n", [4, 6, 21])
def test_seeds_needed_are_the_fewest_with_eighty_percent_power(paired, n):
    """Between what n and n - 1 seeds detect, n are needed."""
    enough, too_small = detectable(2.0, n, paired=paired), detectable(2.0, n - 1, paired=paired)
    found = needed(2.0, (enough + too_small) / 2, paired=paired)
    assert (found, type(found)) == (n, int)


@pytest.mark.parametrize("difference", [-0.1, 0.0, math.inf, math.nan])
def test_no_number_of_seeds_is_named_for_what_is_no_difference(difference):
    assert needed(1.0, difference, paired=False) is None
    assert needed(0.0, difference, paired=True) is None


def lost_lag(x, most):
    """How many lags come before the first whose autocorrelation is within 1.96 / sqrt(n)."""
    d, n = x - x.mean(), len(x)
    for lag in range(1, most + 1):
        if abs((d[lag:] * d[:-lag]).sum() / (d * d).sum()) < 1.96 / math.sqrt(n):
            return lag - 1
    return most


@pytest.mark.parametrize(
    "x",
    [
        *(ar1(rho, n, seed=n) for rho in (0.0, 0.5, 0.9) for n in (8, 9, 11, 30, 200)),
        ar1(0.995, 4000),
        np.tile([0.0, 1.0], 40),
        np.arange(8000.0),
    ],
    ids=lambda x: str(len(x)),
)
def test_block_length_is_twice_the_lags_with_correlation_within_its_limits(x):
    quarter = len(x) // 4
    twice = 2 * lost_lag(x, min(quarter, 500))
    found = block_length(x)
    assert (found, type(found)) == (
        min(quarter, max(twice, math.ceil(len(x) ** (1 / 3)))),
        int,
    )
    assert block_length(x[:7]) == 1


def test_block_means_are_means_of_whole_blocks_that_begin_anywhere():
    x = ar1(0.8, 203)
    length = block_length(x)
    assert length > 1
    count = math.ceil(203 / length)
    starts = np.random.default_rng(5).integers(0, 203 - length + 1, size=(2000, count))
    expected = [np.mean([x[s : s + length].mean() for s in row]) for row in starts]
    assert block_means(x, np.random.default_rng(5)) == pytest.approx(expected)
    assert block_means(x, np.random.default_rng(5), 7) == pytest.approx(expected[:7])


def test_resamples_draw_as_many_seeds_as_there_are_for_each_side():
    arm, base = resampled((2, 5), np.random.default_rng(0), paired=False)
    assert arm.shape == (10_000, 2)
    assert base.shape == (10_000, 5)
    for weights, n in ((arm, 2), (base, 5)):
        assert np.allclose(weights * n, np.rint(weights * n))
        assert np.allclose(weights.sum(axis=1), 1)
        assert weights.mean(axis=0) == pytest.approx([1 / n] * n, abs=0.01)
