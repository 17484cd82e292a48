"""The simulation calls what the report would call, and its draws have the noise they came from."""

import numpy as np
import pytest

from bench import calibration
from report import verdict


@pytest.fixture(scope="module")
def pool():
    return calibration.noise(calibration.RUNS)


@pytest.mark.parametrize("paired", [True, False])
def test_contest_by_contest_the_report_calls_the_same(pool, paired, monkeypatch):
    monkeypatch.setattr(verdict, "bca", lambda _: None)  # decides nothing, and takes its time
    rng = np.random.default_rng(2)
    losses = calibration.draw(pool, (12, 3, 3), paired, rng)
    losses[::2, 1] -= 2 * calibration.sigma(pool, paired)  # so that some are called
    ours = calibration.called(calibration.p_values(losses, paired))

    def values(contest, arm):
        first = 0 if paired else 3 * arm
        return {(first + j, 1): float(x) for j, x in enumerate(contest[arm])}

    theirs = []
    for contest in losses:
        compared = {str(arm): verdict.tested("0", values(contest, arm), values(contest, 0), ())
                    for arm in (1, 2)}  # fmt: skip
        judged = verdict.adjusted(compared, 0.0).values()
        assert {c.method for c in judged} == {"paired t" if paired else "Welch"}
        theirs.append(any(c.call in ("better", "worse") for c in judged))
    assert ours.tolist() == theirs
    assert 0 < sum(theirs) < len(theirs)


def test_draws_have_the_covariance_of_the_recorded_runs(pool):
    """Pairs keep the noise that the arms of a seed share; drawn apart they have none of it."""
    two, rng = pool[:2], np.random.default_rng(0)
    for paired in (True, False):
        losses = calibration.draw(two, (40_000, 2, 1), paired, rng)[..., 0]
        want = np.cov(two, bias=True)
        variances = np.mean(np.diag(want))  # the roles change places
        assert losses.var(axis=0) == pytest.approx([variances] * 2, rel=0.05)
        shared = np.cov(losses.T)[0, 1]
        assert shared == pytest.approx(want[0, 1] if paired else 0.0, abs=0.05 * variances)


def test_without_a_difference_few_are_called_and_with_a_large_one_nearly_all():
    normal = np.random.default_rng(0).standard_normal((10, 400))
    assert calibration.false_positives(normal, 5, True, 2000) < 0.06
    assert calibration.power(normal, 5, True, 9000) == pytest.approx(0.8, abs=0.03)
