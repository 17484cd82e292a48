"""How many seeds? The power of the rule by which report/verdict.py decides.

    smallest_shown(0.0075, seeds=3, arms=10)          # nats that three seeds show with 80 % power
    seeds_needed(0.0075, 0.005, arms=10)              # seeds that show 0.005 nats

Both are for a contest of so many arms, one of which differs from the baseline: the arm is called
where p times the number of comparisons is below 5 % (Holm's first step). statsmodels has the power
of Student's t alone, not of Welch's or the moderated t.

It lies in record/, since the planner of contests and the reader of records both ask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

ALPHA = 0.05  # of all calls of a contest together, two-sided
POWER = 0.8
MODERATED_ARMS = 4  # from so many on, an arm's variance borrows from the other arms
OWN_SHARE = 0.1  # of the level, there: for the arm's own variance, which one wild arm cannot widen
LARGEST_N = 10_000  # seeds; nobody runs more
POINTS = 100  # of each distribution of a variance

Floats = NDArray[np.float64]


def pooled_std(groups: Sequence[ArrayLike]) -> float | None:
    """Root of the variances' mean, weighted by degrees of freedom; None without any."""
    arrays = [np.asarray(g, dtype=np.float64) for g in groups if len(np.asarray(g)) > 1]
    if not arrays:
        return None
    squares = sum(float(((x - x.mean()) ** 2).sum()) for x in arrays)
    return math.sqrt(squares / sum(len(x) - 1 for x in arrays))


def smallest_shown(
    sigma: float | None, seeds: int, *, arms: int = 2, paired: bool = True
) -> float | None:
    """Smallest difference that `seeds` seeds per arm show with 80 % power; None below two.

    sigma: std of differences in a pair; unpaired, of one arm's loss. None gives None. The result
    has its unit.
    """
    if sigma is None or seeds < 2:
        return None
    return sigma * _effect(seeds, max(1, arms - 1), paired)


def seeds_needed(
    sigma: float | None, difference: float, *, arms: int = 2, paired: bool = True
) -> int | None:
    """Seeds per arm that show `difference` with 80 % power, at least 2; None above 10,000.

    sigma: as in `smallest_shown`.
    """
    if sigma is None or difference <= 0 or not math.isfinite(difference):
        return None
    tests = max(1, arms - 1)

    def enough(seeds: int) -> bool:
        return sigma * _effect(seeds, tests, paired) <= difference

    z = stats.norm.isf(ALPHA / (2 * tests)) + stats.norm.ppf(POWER)  # with a known variance
    fewest = (1 if paired else 2) * (sigma * z / difference) ** 2
    if fewest > LARGEST_N:
        return None
    low, step = max(1, math.floor(fewest) - 1), 1
    while not enough(low + step):
        low, step = low + step, 2 * step
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high if high <= LARGEST_N else None


@cache
def _effect(seeds: int, tests: int, paired: bool) -> float:
    """Smallest difference in units of sigma that is called in 80 % of contests."""
    limits = _limits(seeds, tests, paired)

    def missing(effect: float) -> float:
        found = special.ndtr(effect - limits) + special.ndtr(-effect - limits)
        return float(found.mean()) - POWER

    highest = float(np.quantile(limits, 0.9)) + 5
    error = math.sqrt((1 if paired else 2) / seeds)  # of a difference whose sigma is 1
    return error * float(optimize.brentq(missing, 0.0, highest))


def _limits(seeds: int, tests: int, paired: bool) -> Floats:
    """Difference from which a contest calls, in true standard errors: over all contests' variances.

    The variance estimates have chi-square distributions, each taken at POINTS quantiles.
    """
    df = seeds - 1
    own = _chi_square(df)[:, None]
    if not paired:  # Welch, with equal variances
        other = own.T
        freedom = df * (own + other) ** 2 / (own**2 + other**2)
        known = np.linspace(df, 2 * df, POINTS)  # between: a tenth of the time of exact values
        limit = np.interp(freedom, known, _limit(tests, known))
        return np.asarray(limit * np.sqrt((own + other) / 2))
    if tests + 1 < MODERATED_ARMS:
        return _limit(tests, df) * np.sqrt(_chi_square(df, POINTS**2))
    own_limit = _limit(tests, df, OWN_SHARE) * np.sqrt(own)
    others = tests - 1
    # They share the baseline, so that two variances correlate by 1/4 and their mean is less sure.
    borrowed = _chi_square(df * 4 * others / (others + 3)).T[None, :]
    shared_limit = _limit(tests, 2 * df, 1 - OWN_SHARE)
    return np.minimum(shared_limit * np.sqrt(np.maximum(own, (own + borrowed) / 2)), own_limit)


def _limit(tests: int, df: float | Floats, share: float = 1.0) -> Floats:
    """The t value from which a comparison is called, by a test with a share of the level."""
    return np.asarray(stats.t.isf(share * ALPHA / (2 * tests), df))


def _chi_square(df: float, points: int = POINTS) -> Floats:
    """Quantiles of a variance estimate over the true variance, at the middles of equal parts."""
    return np.asarray(stats.chi2.ppf((np.arange(points) + 0.5) / points, df) / df)
