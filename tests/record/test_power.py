"""Seeds against differences, compared with statsmodels, the noncentral t and whole contests."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from record.power import pooled_std, seeds_needed, smallest_shown


@pytest.mark.parametrize(("n", "arms"), [(3, 2), (5, 2), (50, 2), (5, 3), (10, 3)])
def test_below_four_arms_pairs_need_what_statsmodels_says_at_holms_first_step(n, arms):
    found = smallest_shown(2.0, n, arms=arms)
    power = TTestPower().power(found / 2.0, n, 0.05 / (arms - 1))
    assert power == pytest.approx(0.8, abs=2e-3)


@pytest.mark.parametrize(
    ("sigma", "n", "student"),
    [(0.0011, 3, 0.0033), (0.0011, 5, 0.0022), (0.0011, 10, 0.0015), (0.0025, 5, 0.0051)],
)
def test_unpaired_welch_needs_more_than_student_and_as_much_with_many_seeds(sigma, n, student):
    """Student's check values are published; Welch's test decides, and pays with few seeds."""
    found = smallest_shown(sigma, n, paired=False)
    assert student * 0.97 < found < student * (1 + 0.6 / n)
    many = smallest_shown(1.0, 200, paired=False)
    assert many == pytest.approx(TTestIndPower().solve_power(nobs1=200, alpha=0.05, power=0.8),
                                 rel=2e-3)  # fmt: skip


def contests(arms, n, paired, rng, count=4_000):
    """Share of contests in which the arm that differs by `smallest_shown` is called."""
    sigma = math.sqrt(2) if paired else 1.0  # of independent losses with variance 1
    losses = rng.standard_normal((count, arms, n))
    losses[:, 1] -= smallest_shown(sigma, n, arms=arms, paired=paired)
    first, others = losses[:, :1], losses[:, 1:]
    if not paired:
        p = stats.ttest_ind(others, first, axis=-1, equal_var=False).pvalue
        return (p[:, 0] * (arms - 1) < 0.05).mean()
    gaps = others - first
    own, p = gaps.var(axis=-1, ddof=1), stats.ttest_1samp(gaps, 0, axis=-1).pvalue
    if arms >= 4:
        rest = (own.sum(axis=1, keepdims=True) - own) / (arms - 2)
        variance = np.maximum(own, (own + rest) / 2)
        shared = 2 * stats.t.sf(np.abs(gaps.mean(axis=-1)) / np.sqrt(variance / n), 2 * (n - 1))
        p = np.minimum(shared / 0.9, p / 0.1)
    return (p[:, 0] * (arms - 1) < 0.05).mean()


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("arms", [2, 4, 6, 12])
def test_promised_power_is_what_whole_contests_have(arms, n, paired):
    rng = np.random.default_rng([arms, n, paired])
    assert contests(arms, n, paired, rng) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(("n", "arms"), [(3, 10), (4, 2), (6, 4), (21, 10)])
def test_seeds_needed_are_the_fewest_that_show_the_difference(n, arms, paired):
    """Between what n and n - 1 seeds show, n are needed."""
    options = {"arms": arms, "paired": paired}
    enough, too_small = (smallest_shown(2.0, seeds, **options) for seeds in (n, n - 1))
    found = seeds_needed(2.0, (enough + too_small) / 2, **options)
    assert (found, type(found)) == (n, int)


def test_at_the_edges():
    assert seeds_needed(1.0, 1000.0) == seeds_needed(0.0, 0.1) == 2
    assert seeds_needed(1.0, 0.04, paired=False) == pytest.approx(9811, abs=5)  # 2 z² / d²
    assert seeds_needed(1.0, 0.0375, paired=False) is None  # 11,164
    assert smallest_shown(1.0, 1) is smallest_shown(None, 5) is seeds_needed(None, 0.1) is None
    assert smallest_shown(0.0, 5) == 0.0


@pytest.mark.parametrize("difference", [-0.1, 0.0, math.inf, math.nan])
def test_no_number_of_seeds_is_named_for_what_is_no_difference(difference):
    assert seeds_needed(1.0, difference) is None
    assert seeds_needed(0.0, difference) is None


def test_pooled_std_weighs_by_degrees_of_freedom():
    a, b = [3.281, 3.279, 3.284, 3.277], [3.290, 3.285]
    expected = math.sqrt((3 * np.var(a, ddof=1) + 1 * np.var(b, ddof=1)) / 4)
    assert pooled_std([a, b, [7.0]]) == pytest.approx(expected)
    assert pooled_std([np.float32(a), b]) == pooled_std([np.float32(a).astype(float), b])
    assert pooled_std([[1.0], []]) is None
