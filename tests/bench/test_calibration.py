"""The simulation calls what the report would call, and its draws have the noise they came from."""

import numpy as np
import pytest
from scipy import special, stats

from bench.calibration import checks, noise, rules
from report import verdict


@pytest.fixture(scope="module")
def pool():
    return noise.noise(noise.RUNS)


def judged(contest, paired):
    """Which arms the report calls better or worse."""

    def values(arm):
        first = 0 if paired else len(contest[arm]) * arm
        return {(first + j, first + j): float(x) for j, x in enumerate(contest[arm])}

    arms = range(1, len(contest))
    compared = {str(arm): verdict.tested("0", values(arm), values(0), ()) for arm in arms}
    found = verdict.adjusted(compared, 0.0).values()
    return [c.call in ("better", "worse") for c in found], {c.method for c in found}


@pytest.mark.parametrize(
    ("arms", "kind", "n", "paired", "method"),
    [
        (3, "recorded", 3, True, "paired t"),
        (5, "recorded", 3, True, "moderated t"),
        (5, "wild", 8, True, "moderated t"),  # beside its own paired t, which alone shows it here
        (5, "recorded", 3, False, "Welch"),
    ],
)
def test_contest_by_contest_the_report_calls_the_same(
    pool, arms, kind, n, paired, method, monkeypatch
):
    monkeypatch.setattr(verdict, "bca", lambda _: None)  # decides nothing, and takes its time
    losses = noise.draw(pool, kind, (12, arms, n), np.random.default_rng(2))
    losses[::2, 1] -= 4 * noise.sigma(pool)  # so that some are called
    ours = (rules.in_use if paired else rules.welch)(losses)
    for contest, called in zip(losses, ours.tolist(), strict=True):
        assert judged(contest, paired) == (called, {method})
    assert 0 < ours.sum() < ours.size
    assert kind != "wild" or not rules.moderated(losses).any()


@pytest.mark.parametrize("kind", ["recorded", "skewed"])
def test_draws_have_the_covariance_of_the_recorded_runs(pool, kind):
    losses = noise.draw(pool, kind, (60_000, 10, 1), np.random.default_rng(0), baseline=3)
    assert losses[:, 0].var() == pytest.approx(pool[3].var(ddof=1), rel=0.05)
    gaps = (losses[:, 1:] - losses[:, :1])[..., 0]
    want = np.mean([(pool[i] - pool[3]).var(ddof=1) for i in range(10) if i != 3])
    assert gaps.var(axis=0).mean() == pytest.approx(want, rel=0.05)


def test_skewed_draws_keep_the_skew_and_normal_ones_have_none(pool):
    rng = np.random.default_rng(1)
    by_kind = {
        kind: stats.skew(noise.draw(pool, kind, (40_000, 2, 1), rng, baseline=1)[:, 0, 0])
        for kind in ("recorded", "skewed")
    }
    assert abs(by_kind["recorded"]) < 0.05
    recorded = stats.skew(pool[1])
    smoothed = recorded / (1 + noise.KERNEL**2) ** 1.5
    assert by_kind["skewed"] == pytest.approx(smoothed, abs=0.1)


def test_arms_beyond_those_recorded_have_noise_of_their_own(pool):
    losses = noise.draw(pool, "recorded", (4_000, 12, 1), np.random.default_rng(0))[..., 0]
    correlations = np.corrcoef(losses.T)
    assert correlations[np.triu_indices(12, 1)].max() < 0.95


def test_one_arm_in_eight_is_wild_and_never_the_first_two(pool):
    for arms, wild in ((2, 0), (3, 1), (10, 1), (16, 2)):
        losses = noise.draw(pool, "wild", (4_000, arms, 1), np.random.default_rng(0))[..., 0]
        noisy = losses.std(axis=0) > 10 * noise.sigma(pool)
        assert noisy.tolist() == [False] * (arms - wild) + [True] * wild


def test_rules_that_need_equal_variances_fail_where_one_arm_is_noisy():
    losses = np.random.default_rng(0).standard_normal((4_000, 6, 4))
    losses[:, -1] *= 10
    shares = {
        name: rules.RULES[name](losses).any(axis=1).mean()
        for name in ("moderated or own (in use)", "paired t", "pooled, Dunnett")
    }
    assert shares["pooled, Dunnett"] > 0.1
    assert max(shares["moderated or own (in use)"], shares["paired t"]) < 0.057


@pytest.mark.parametrize("name", rules.RULES)
def test_equal_normal_noise_is_called_in_about_five_percent(name):
    losses = np.random.default_rng(3).standard_normal((4_000, 5, 8))
    assert 0.02 < rules.RULES[name](losses).any(axis=1).mean() < 0.067


def test_sign_flips_are_westfall_and_youngs_on_every_contest():
    losses = np.random.default_rng(4).standard_normal((6, 3, 6))
    losses[:, 1] += 2
    for contest, called in zip(losses, rules.sign_flips(losses), strict=True):
        gaps = contest[1:] - contest[0]
        signs = np.array(np.meshgrid(*[[1, -1]] * 6)).reshape(6, -1).T
        largest = [np.abs(stats.ttest_1samp(gaps * s, 0, axis=1).statistic).max() for s in signs]
        t = np.abs(stats.ttest_1samp(gaps, 0, axis=1).statistic)
        p = [(np.array(largest) >= x - 1e-9).mean() for x in t]
        assert called.tolist() == [x < 0.05 for x in p]


def test_dunnetts_limit_is_scipys():
    """Differences to one baseline correlate by 1/2; 5 arms x 7 seeds have 24 degrees of freedom."""
    limit = np.full(4, rules._dunnett(5, 7))
    t = stats.multivariate_t(shape=(np.eye(4) + 1) / 2, df=24, seed=0)
    assert t.cdf(limit, lower_limit=-limit) == pytest.approx(0.95, abs=0.006)


def test_smyths_prior_is_fitted_by_moments():
    x = np.array([0.01, 0.3, 2.0, 50.0])
    assert special.polygamma(1, rules._inverse_trigamma(x)) == pytest.approx(x)


def test_promises_hold_on_equal_noise(pool):
    for paired in (True, False):
        assert checks.planner(pool, "equal", 6, 5, paired)[1] == pytest.approx(80, abs=3)
    assert checks.false_equivalents(pool, "equal", 4, 5) < 5.7
    assert max(checks.misses(pool, "equal", 4, 5).values()) < 5.7
