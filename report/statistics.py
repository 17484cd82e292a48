"""Intervals, tests, bootstrap and power: thin over scipy and statsmodels.

Losses are compared two-sided at alpha 0.05; intervals are 95 %. Functions that need at least two
values return None without them, so that nobody prints a made-up number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from record.power import ALPHA, MODERATED_ARMS, OWN_SHARE

RESAMPLES = 10_000
ROUNDING = 1e-9  # a spread below this share of the mean is rounding

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """95 % between low and high."""

    low: float
    high: float


class TextPart(NamedTuple):
    """What the choice of the text adds to the error of a difference (report/text.py)."""

    error: float
    df: float


FIXED_TEXT = TextPart(0.0, 1.0)


class OwnSpread(NamedTuple):
    """Standard error of a difference by its own variance alone, and its degrees of freedom."""

    error: float
    df: float


class Test(NamedTuple):
    """Difference of means, its 95 % interval, and the two-sided p value.

    error: standard error of the difference. df: degrees of freedom of its t distribution. own:
    where `error` borrows from other tests, a second way to be shown, with OWN_SHARE of the level,
    which leaves the first the rest. text: what is added where the interval is for other texts too.
    """

    difference: float
    low: float
    high: float
    p: float
    error: float
    df: float
    own: OwnSpread | None = None
    text: TextPart = FIXED_TEXT

    def interval(self, alpha: float) -> Interval:
        """Two-sided interval of the difference, of level 1 - alpha: the narrower of its ways."""
        half = min(
            _t_limit(share * alpha, df) * error
            for share, error, df in _ways(self.error, self.df, self.own)
        )
        if self.text.error:
            half = math.hypot(half, _t_limit(alpha, self.text.df) * self.text.error)
        return Interval(self.difference - half, self.difference + half)

    def within(self, smallest: float) -> bool:
        """Two one-sided tests at ALPHA: is the difference surely inside +-smallest?"""
        low, high = self.interval(2 * ALPHA)
        return -smallest < low and high < smallest


def _ways(error: float, df: float, own: OwnSpread | None) -> list[tuple[float, float, float]]:
    """(share of the level, standard error, degrees of freedom) of each t that may show it."""
    return [(1.0, error, df)] if own is None else [(1 - OWN_SHARE, error, df), (OWN_SHARE, *own)]


def _t_limit(alpha: float, df: float) -> float:
    """Of |t|, two-sided; in a hundredth of the time of stats.t.isf, which calls this."""
    return -float(special.stdtrit(df, alpha / 2))


def two_sided_p(difference: float, error: float, df: float, own: OwnSpread | None = None) -> float:
    """Of Student's t of a difference against 0; own: as in Test. Errors are above 0.

    The smaller p of two ways, each divided by its share of the level: a weighted Bonferroni, which
    holds whatever the two have in common.
    """
    found = [
        2 * float(special.stdtr(df, -abs(difference) / error)) / share
        for share, error, df in _ways(error, df, own)
    ]
    return min(1.0, *found)


def t_test(difference: float, error: float, df: float, own: OwnSpread | None = None) -> Test:
    """Student's t of a difference against 0; own: as in Test. Errors are above 0."""
    p = two_sided_p(difference, error, df, own)
    plain = Test(difference, difference, difference, p, error, df, own)
    low, high = plain.interval(ALPHA)
    return plain._replace(low=low, high=high)


def t_interval(values: ArrayLike) -> Interval | None:
    """Student's interval of the mean; None below two values.

    By hand, since scipy's is NaN where all values are the same.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return None
    half = float(stats.t.ppf(1 - ALPHA / 2, len(x) - 1) * stats.sem(x))
    return Interval(float(x.mean()) - half, float(x.mean()) + half)


def paired_t(differences: ArrayLike) -> Test | None:
    """Student's t of paired differences against 0; None below two of them.

    Differences that are all 0 have p = 1. Others that are all the same, but for rounding, have no
    spread to test with: None.
    """
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2:
        return None
    mean = float(d.mean())
    if np.ptp(d) <= ROUNDING * abs(mean):
        return Test(mean, mean, mean, 1.0, 0.0, len(d) - 1) if mean == 0 else None
    result = stats.ttest_1samp(d, 0.0)
    low, high = result.confidence_interval(1 - ALPHA)
    p, error = float(result.pvalue), float(stats.sem(d))
    return Test(mean, float(low), float(high), p, error, len(d) - 1)


def welch_t(arm: ArrayLike, baseline: ArrayLike) -> Test | None:
    """Welch's t of mean(arm) - mean(baseline); None below two values on a side.

    Without any spread p is 1 when the means are equal; otherwise nothing can be tested: None.
    """
    a, b = np.asarray(arm, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if min(len(a), len(b)) < 2:
        return None
    mean = float(a.mean() - b.mean())
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return Test(mean, mean, mean, 1.0, 0.0, len(a) + len(b) - 2) if mean == 0 else None
    result = stats.ttest_ind(a, b, equal_var=False)
    low, high = result.confidence_interval(1 - ALPHA)
    p, error = float(result.pvalue), math.hypot(stats.sem(a), stats.sem(b))
    return Test(mean, float(low), float(high), p, error, float(result.df))


def moderated(tests: Sequence[Test], counts: Sequence[int], arms: int) -> list[Test]:
    """Paired t-tests whose variances borrow from each other; as they are below four arms.

    counts: pairs of each test. arms: how many arms the tests compare. With OWN_SHARE of the level
    each may be shown by its own variance too: an arm that is far noisier than the others widens
    what they borrow, which no number of seeds would overcome. A test stays as it is where no
    variance at all is left to test with.
    """
    if arms < MODERATED_ARMS or len(tests) < 2:
        return list(tests)
    variances, df = moderated_variances(
        np.array([test.error**2 * n for test, n in zip(tests, counts, strict=True)]),
        np.array([test.df for test in tests]),
    )
    return [
        t_test(test.difference, math.sqrt(variance / n), freedom, _own(test)) if variance else test
        for test, n, variance, freedom in zip(
            tests, counts, variances.tolist(), df.tolist(), strict=True
        )
    ]


def _own(test: Test) -> OwnSpread | None:
    """None for pairs without any difference, which have no spread."""
    return OwnSpread(test.error, test.df) if test.error else None


def moderated_variances(variances: Floats, df: Floats) -> tuple[Floats, Floats]:
    """Each variance averaged with the mean of the others, never below itself; and its freedom.

    variances: (..., tests), at least two. df: (tests,), of each. A moderated t (Smyth 2004,
    doi:10.2202/1544-6115.1027) whose prior is the other tests' mean variance (by their degrees of
    freedom) with as many degrees of freedom as the test has itself, or as the others have if those
    are fewer. Never below itself: a test that is noisier than the others stays so, which is what
    keeps the error rate where variances differ (docs/results/calibration.md).
    """
    others = df.sum() - df
    prior = ((variances * df).sum(axis=-1, keepdims=True) - variances * df) / others
    borrowed = np.minimum(df, others)
    mean = (df * variances + borrowed * prior) / (df + borrowed)
    return np.maximum(variances, mean), df + borrowed


def bca(samples: Sequence[ArrayLike]) -> Interval | None:
    """BCa bootstrap of a mean (one sample) or a difference of means (two), 10,000 resamples.

    None where it is not defined: below two values, or no spread. The seed is fixed, so that a
    report made twice says the same.
    """
    data = tuple(np.asarray(sample, dtype=np.float64) for sample in samples)
    if min(map(len, data)) < 2 or all(np.ptp(x) == 0 for x in data):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of degenerate resamples, which the NaN below shows
        interval = stats.bootstrap(
            data,
            np.mean if len(data) == 1 else _mean_difference,
            n_resamples=RESAMPLES,
            method="BCa",
            vectorized=True,
            rng=np.random.default_rng(0),
        ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    return None if math.isnan(low) or math.isnan(high) else Interval(low, high)


def _mean_difference(x: Floats, y: Floats, axis: int = -1) -> Floats:
    """Statistic of `bca` for two samples."""
    return np.asarray(x.mean(axis=axis) - y.mean(axis=axis))


def holm(p: ArrayLike) -> Floats:
    """p values adjusted for being a family (Holm 1979), along the last axis.

    By hand, since statsmodels collects garbage at every call, in tenths of a second.
    """
    x = np.asarray(p, dtype=np.float64)
    order = np.argsort(x, axis=-1)
    steps = np.take_along_axis(x, order, axis=-1) * np.arange(x.shape[-1], 0, -1)
    adjusted = np.empty_like(x)
    highest = np.maximum.accumulate(np.minimum(steps, 1), axis=-1)
    np.put_along_axis(adjusted, order, highest, axis=-1)
    return adjusted


def block_length(x: Floats) -> int:
    """Length of the blocks in which a series is resampled: twice the lag at which its
    autocorrelation is lost in noise, at least n^(1/3), at most a quarter of the series.
    """
    from statsmodels.tsa.stattools import acf

    n = len(x)
    most = max(1, n // 4)
    if n < 8 or np.ptp(x) == 0:
        return 1
    correlations = acf(x, nlags=min(most, 500))[1:]
    lost = np.flatnonzero(np.abs(correlations) < 1.96 / math.sqrt(n))
    lag = int(lost[0]) if len(lost) else len(correlations)
    return min(most, max(2 * lag, math.ceil(n ** (1 / 3))))


def block_means(x: Floats, rng: np.random.Generator, resamples: int = 2_000) -> Floats:
    """Means of moving-block bootstrap resamples of a series (Künsch 1989), shape (resamples,).

    Neighbouring step times resemble each other; resampling them one by one would make the mean
    look surer than it is.
    """
    length = block_length(x)
    blocks = np.convolve(x, np.ones(length), mode="valid")  # sums of all blocks
    count = math.ceil(len(x) / length)
    starts = rng.integers(0, len(blocks), size=(resamples, count))
    return np.asarray(blocks[starts].sum(axis=1) / (count * length))
