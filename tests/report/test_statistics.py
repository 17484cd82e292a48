"""Statistics against scipy, statsmodels, closed forms and published check values."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from report.statistics import (
    bca,
    block_length,
    block_means,
    holm,
    moderated,
    moderated_variances,
    paired_t,
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
    assert paired_t([0.0] * 3)[:6] == (0.0, 0.0, 0.0, 1.0, 0.0, 2)
    assert welch_t([1.0] * 3, [1.0] * 3)[:6] == (0.0, 0.0, 0.0, 1.0, 0.0, 4)
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


def test_holm_is_statsmodels():
    p = np.random.default_rng(5).uniform(0, 0.2, (2, 6))
    for one, adjusted in zip(p, holm(p), strict=True):
        assert adjusted == pytest.approx(multipletests(one, method="holm")[1])
    assert holm([]).shape == (0,)


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


# ------------------------------------------------------------------------------ moderated variances


def test_a_variance_is_averaged_with_the_others_but_never_made_smaller():
    """By hand: 1 with (3 + 8) / 2, 3 with (1 + 8) / 2; 8 is above the mean of 8 and (1 + 3) / 2."""
    variances, df = moderated_variances(np.array([1.0, 3.0, 8.0]), np.array([2.0, 2.0, 2.0]))
    assert variances == pytest.approx([3.25, 3.75, 8.0])
    assert df == pytest.approx([4, 4, 4])


def test_unequal_numbers_of_pairs_borrow_no_more_than_there_is():
    """By hand: 8 degrees of freedom borrow the 3 of the others, 1 and 2 borrow as many again."""
    variances, df = moderated_variances(np.array([1.0, 2.0, 4.0]), np.array([8.0, 1.0, 2.0]))
    others = [(1 * 2 + 2 * 4) / 3, (8 * 1 + 2 * 4) / 10, (8 * 1 + 1 * 2) / 9]
    assert df == pytest.approx([11, 2, 4])
    assert variances == pytest.approx([(8 * 1 + 3 * others[0]) / 11, 2.0, 4.0])
    assert (2 + others[1]) / 2 < 2  # which would have made it smaller
    many = moderated_variances(np.array([[1.0, 2.0, 4.0]] * 5), np.array([8.0, 1.0, 2.0]))[0]
    assert many == pytest.approx(np.tile(variances, (5, 1)))


def test_moderated_tests_are_students_with_the_moderated_variance_or_their_own():
    """With nine tenths of the level or one: the smaller p, the narrower interval."""
    gaps = [[-0.02, -0.021, -0.019], [0.04, 0.05, 0.03], [0.002, -0.005, 0.003]]
    tests = [paired_t(gap) for gap in gaps]
    assert moderated(tests, [3] * 3, 3) == tests  # three arms: as they are
    own = np.var(gaps, axis=1, ddof=1)
    for i, test in enumerate(moderated(tests, [3] * 3, 4)):
        variance = max(own[i], (own[i] + np.delete(own, i).mean()) / 2)
        mean, error = np.mean(gaps[i]), math.sqrt(variance / 3)
        p = 2 * stats.t.sf(abs(mean) / error, 4) / 0.9
        p = min(p, stats.ttest_1samp(gaps[i], 0).pvalue / 0.1, 1)
        assert test.p == pytest.approx(p)
        for level in (0.05, 0.0001):
            halves = [stats.t.isf(0.45 * level, 4) * error]
            halves += [stats.t.isf(0.05 * level, 2) * math.sqrt(own[i] / 3)]
            assert test.interval(level) == pytest.approx((mean - min(halves), mean + min(halves)))
        assert (test.low, test.high) == test.interval(0.05)


def test_an_arm_that_is_clear_by_itself_is_shown_beside_one_that_is_wild():
    """Borrowed noise alone would hide ten standard deviations, with any number of seeds."""
    rng = np.random.default_rng(0)
    quiet = rng.normal(10, 1, 5)
    wild = [rng.normal(0, 300, 5) for _ in range(3)]
    tests = [paired_t(gaps) for gaps in (quiet, *wild)]
    shown = moderated(tests, [5] * 4, 5)[0]
    assert shown.p < 0.001 < 2 * stats.t.sf(abs(shown.difference) / shown.error, shown.df)
    assert shown.p == pytest.approx(10 * tests[0].p)


def test_pairs_without_a_difference_borrow_the_noise_of_the_other_arms():
    tests = [paired_t([0.0, 0.0]), paired_t([1.0, 3.0]), paired_t([0.0, 1.0])]
    same, *_ = moderated(tests, [2] * 3, 4)
    assert (same.p, same.df, same.error) == (1.0, 2, math.sqrt((2 + 0.5) / 2 / 2 / 2))
    flat = [paired_t([0.0, 0.0])] * 3
    assert moderated(flat, [2] * 3, 4) == flat


def test_within_is_two_one_sided_tests_at_five_percent():
    gaps = [0.001, 0.002, 0.0005, 0.0012]
    test = paired_t(gaps)
    for smallest in (0.0015, 0.0018, 0.002, 0.0025):
        upper = stats.ttest_1samp(gaps, smallest, alternative="less").pvalue
        lower = stats.ttest_1samp(gaps, -smallest, alternative="greater").pvalue
        assert test.within(smallest) == (max(upper, lower) < 0.05)
