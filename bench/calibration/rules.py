"""Candidates for the rule that decides a contest, over many contests at once.

Each takes losses of shape (contests, arms, seeds), whose first arm is the baseline, and says which
of the other arms it calls, two-sided, at 5 % of contests with a false call: an array of shape
(contests, arms - 1). The one in use is report/verdict.py's; tests/bench/test_calibration.py checks
contest by contest that both call the same.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special, stats

from record.power import ALPHA, MODERATED_ARMS, OWN_SHARE
from report.statistics import holm, moderated_variances

Rule = Callable[[np.ndarray], np.ndarray]
NEWTON_STEPS = 30
MOST_PRIOR = 1e6  # degrees of freedom that stand for infinitely many


def gaps_of(losses: np.ndarray) -> np.ndarray:
    """Differences to the baseline, in pairs: (contests, arms - 1, seeds)."""
    return losses[:, 1:] - losses[:, :1]


@dataclass(frozen=True)
class Tests:
    """Tests of differences (contests, tests, pairs): means, and the ways in which they are shown.

    ways: (share of the level, standard errors, degrees of freedom).
    """

    mean: np.ndarray
    ways: list[tuple[float, np.ndarray, np.ndarray]]

    @property
    def p(self) -> np.ndarray:
        """Two-sided."""
        return np.minimum.reduce([p_of(self.mean, error, df) / w for w, error, df in self.ways])

    def half(self, level: float) -> np.ndarray:
        """Half of the two-sided interval of level 1 - `level`."""
        return np.minimum.reduce([stats.t.isf(w * level / 2, df) * e for w, e, df in self.ways])


def tests_in_use(gaps: np.ndarray, arms: int) -> Tests:
    """As the report makes them."""
    n = gaps.shape[-1]
    variances, df = gaps.var(axis=-1, ddof=1), np.full(gaps.shape[1], n - 1.0)
    ways = [(1.0, np.sqrt(variances / n), df)]
    if arms >= MODERATED_ARMS:
        shared, more = moderated_variances(variances, df)
        ways = [(1 - OWN_SHARE, np.sqrt(shared / n), more), (OWN_SHARE, *ways[0][1:])]
    return Tests(gaps.mean(axis=-1), ways)


def p_of(mean: np.ndarray, error: np.ndarray, df: np.ndarray | float) -> np.ndarray:
    """Two-sided p of Student's t."""
    return np.asarray(2 * special.stdtr(df, -np.abs(mean) / error))


def in_use(losses: np.ndarray) -> np.ndarray:
    """The moderated t below, or the arm's own paired t with a share of the level; Holm."""
    return holm(tests_in_use(gaps_of(losses), losses.shape[1]).p) < ALPHA


def in_use_single_step(losses: np.ndarray) -> np.ndarray:
    """As in use, with Bonferroni instead of Holm."""
    p = tests_in_use(gaps_of(losses), losses.shape[1]).p
    return p * p.shape[1] < ALPHA


def moderated(losses: np.ndarray) -> np.ndarray:
    """Moderated t with a fixed prior, never below the arm's own variance; Holm."""
    tests = tests_in_use(gaps_of(losses), losses.shape[1])
    return holm(p_of(tests.mean, *tests.ways[0][1:])) < ALPHA


def paired_t(losses: np.ndarray) -> np.ndarray:
    """Ordinary paired t, each arm with its own variance; Holm."""
    gaps = gaps_of(losses)
    error = gaps.std(axis=-1, ddof=1) / np.sqrt(gaps.shape[-1])
    return holm(p_of(gaps.mean(axis=-1), error, gaps.shape[-1] - 1)) < ALPHA


def without_floor(losses: np.ndarray) -> np.ndarray:
    """The moderated t, but a variance may become smaller than the arm's own."""
    gaps = gaps_of(losses)
    own, df = gaps.var(axis=-1, ddof=1), gaps.shape[-1] - 1
    tests = own.shape[1]
    if tests < MODERATED_ARMS - 1:
        return paired_t(losses)
    mean = (own + (own.sum(axis=1, keepdims=True) - own) / (tests - 1)) / 2
    return holm(p_of(gaps.mean(axis=-1), np.sqrt(mean / gaps.shape[-1]), 2 * df)) < ALPHA


def smyth(losses: np.ndarray, most: float = MOST_PRIOR) -> np.ndarray:
    """Moderated t with an empirical prior (Smyth 2004, fitFDist); Holm.

    most: limit of the prior's degrees of freedom.
    """
    gaps = gaps_of(losses)
    own, df = gaps.var(axis=-1, ddof=1), gaps.shape[-1] - 1
    tests = own.shape[1]
    if tests < MODERATED_ARMS - 1:
        return paired_t(losses)
    e = np.log(own) - special.digamma(df / 2) + np.log(df / 2)
    spread = e.var(axis=1, ddof=1) - special.polygamma(1, df / 2)
    prior = np.where(spread > 0, 2 * _inverse_trigamma(np.maximum(spread, 1e-6)), MOST_PRIOR)
    prior = np.minimum(prior, most)[:, None]
    center = np.exp(e.mean(axis=1, keepdims=True) + special.digamma(prior / 2) - np.log(prior / 2))
    variance = (prior * center + df * own) / (prior + df)
    freedom = np.minimum(prior + df, tests * df)
    return holm(p_of(gaps.mean(axis=-1), np.sqrt(variance / gaps.shape[-1]), freedom)) < ALPHA


def smyth_capped(losses: np.ndarray) -> np.ndarray:
    """Smyth's, the prior's degrees of freedom at most the arm's own; Holm."""
    return smyth(losses, losses.shape[-1] - 1)


def _inverse_trigamma(x: np.ndarray) -> np.ndarray:
    """Newton's method on 1 / trigamma, which is nearly straight."""
    y = 0.5 + 1 / x
    for _ in range(NEWTON_STEPS):
        trigamma = special.polygamma(1, y)
        y = y + trigamma * (1 - trigamma / x) / special.polygamma(2, y)
    return np.asarray(y)


def pooled_max_t(losses: np.ndarray) -> np.ndarray:
    """One variance for all arms (two-way residuals), Dunnett's limit for the largest |t|."""
    _, arms, n = losses.shape
    return np.abs(_pooled_t(losses)) > _dunnett(arms, n)


def _pooled_t(losses: np.ndarray) -> np.ndarray:
    _, arms, n = losses.shape
    rest = losses - losses.mean(axis=1, keepdims=True)
    rest = rest - rest.mean(axis=2, keepdims=True)
    variance = (rest**2).sum(axis=(1, 2)) / ((arms - 1) * (n - 1))
    return gaps_of(losses).mean(axis=-1) / np.sqrt(2 * variance / n)[:, None]


@cache
def _dunnett(arms: int, n: int) -> float:
    """95 % quantile of the largest |t| of contests without a difference, by simulation."""
    losses = np.random.default_rng([arms, n]).standard_normal((20_000, arms, n))
    return float(np.quantile(np.abs(_pooled_t(losses)).max(axis=1), 1 - ALPHA))


def sign_flips(losses: np.ndarray) -> np.ndarray:
    """Westfall and Young's max-t: all sign changes of whole seeds, single step.

    With 3 seeds there are 8 and with 5 seeds 32 of them: no p value can be below 5 %, since a set
    of signs and its opposite give the same |t|.
    """
    gaps = gaps_of(losses)
    n = gaps.shape[-1]
    signs = np.array(list(itertools.product((1, -1), repeat=n - 1)))  # the others are opposites
    signs = np.column_stack([np.ones(len(signs)), signs])
    squares = (gaps**2).sum(axis=-1)
    largest = np.empty((len(signs), len(gaps)))
    for i, sign in enumerate(signs):
        t = np.abs(_t_of_sums(gaps @ sign, squares, n))
        largest[i] = t.max(axis=1)
    t = np.abs(_t_of_sums(gaps.sum(axis=-1), squares, n))
    # `1 - 1e-12`: the identity is among the flips, and must count whatever rounding does
    p = (largest[:, :, None] >= t[None] * (1 - 1e-12)).mean(axis=0)
    return np.asarray(p < ALPHA)


def _t_of_sums(sums: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """t from sums and sums of squares."""
    variance = (squares - sums**2 / n) / (n - 1)
    return np.asarray(sums / n / np.sqrt(variance / n))


def welch(losses: np.ndarray) -> np.ndarray:
    """Welch's t on runs that are no pairs; Holm. In use where pairs are missing."""
    test = stats.ttest_ind(losses[:, 1:], losses[:, :1], axis=-1, equal_var=False)
    return holm(test.pvalue) < ALPHA


RULES: dict[str, Rule] = {
    "moderated or own (in use)": in_use,
    "the same, Bonferroni": in_use_single_step,
    "moderated, floor": moderated,
    "paired t": paired_t,
    "moderated, no floor": without_floor,
    "moderated, Smyth": smyth,
    "moderated, capped": smyth_capped,
    "pooled, Dunnett": pooled_max_t,
    "sign flips, max-t": sign_flips,
}
