"""Rank agreement of two contests, where it is known."""

import itertools
import math

import numpy as np
import pytest

from report import transfer
from report.judgement import judge
from report.run import ReportError
from report.study import Study, by_length
from tests.report.contest_folder import configuration
from tests.report.studies import a_run, a_study, changed, rows

NOISE = np.random.default_rng(0).normal(0, 1e-3, (8, 5))


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    monkeypatch.setattr(transfer, "RESAMPLES", 100)


def contest(losses, noise=1.0, seeds=5):
    """{arm: loss}, with the same small noise in each seed of an arm."""
    return a_study(
        {
            arm: {s + 1: x + noise * NOISE[i, s] for s in range(seeds)}
            for i, (arm, x) in enumerate(losses.items())
        }
    )


def by_hand(first, second):
    """Kendall's tau without ties: concordant less discordant pairs, over all pairs."""
    signs = [
        math.copysign(1, (first[a] - first[b]) * (second[a] - second[b]))
        for a, b in itertools.combinations(first, 2)
    ]
    return sum(signs) / len(signs)


ORDER = {"a": 3.0, "b": 3.1, "c": 3.2, "d": 3.3}


@pytest.mark.parametrize(
    "other", [(3.0, 3.1, 3.2, 3.3), (3.3, 3.2, 3.1, 3.0), (3.1, 3.0, 3.3, 3.2)]
)
def test_tau_counts_pairs_in_the_same_order(other):
    second = dict(zip(ORDER, other, strict=True))
    found = transfer.compare(rows(contest(ORDER)), rows(contest(second)))
    tau = by_hand(ORDER, second)
    assert found.tau == pytest.approx(tau)
    assert (found.low, found.high) == pytest.approx((tau, tau))  # gaps are 100 times the noise
    assert found.decided == 6
    assert found.agreed == round((tau + 1) / 2 * 6)


def test_arms_as_close_as_the_noise_widen_the_interval_and_decide_nothing():
    close = dict.fromkeys(ORDER, 3.0)
    found = transfer.compare(rows(contest(close)), rows(contest(close, noise=2.0)))
    assert found.low < 0.4 < found.high
    assert found.decided == 0


def test_only_common_arms_count_and_a_diverged_one_is_last():
    extra = {"x": 2.0, **ORDER}
    lost = contest({"b": 3.0, "c": 3.1, "d": 3.2, "a": 2.0})
    lost = changed(lost, "a", 5, status="diverged")
    found = transfer.compare(rows(contest(extra)), rows(lost))
    assert found.arms == ("a", "b", "c", "d")
    assert found.tau == pytest.approx(by_hand(ORDER, {"a": 9, "b": 3.0, "c": 3.1, "d": 3.2}))


def test_one_seed_gives_no_interval_and_two_common_arms_no_tau():
    one = rows(contest(ORDER, seeds=1))
    assert transfer.compare(one, one).low is None
    with pytest.raises(ReportError, match="share 2 arms that ran, not three"):
        transfer.compare(one, rows(contest({"a": 1.0, "b": 2.0})))


def test_lengths_of_one_contest_are_compared_as_asked(monkeypatch):
    """At 40 updates the arms are ordered otherwise than at 20."""
    runs = [
        a_run(arm, seed, loss + seed / 100, config=configuration(arm, seed, steps=steps))
        for steps, losses in ((20, (3.0, 3.1, 3.2)), (40, (2.8, 2.6, 2.7)))
        for arm, loss in zip("abc", losses, strict=True)
        for seed in (1, 2)
    ]
    study = by_length(Study("c", runs, "a", None, list("abc")))
    monkeypatch.setattr(transfer, "published", lambda folder: (study, judge(study)))
    section = transfer.section("x@20", "x@40")
    assert section.lines[0].startswith("x@20 and x@40 share 3 arms; Kendall's tau")
    assert "is -0.33" in section.lines[0]
    with pytest.raises(ReportError, match="x: give one of x@20, x@40"):
        transfer.section("x", "x@40")
    with pytest.raises(ReportError, match="x@30: give one of x@20, x@40"):
        transfer.section("x@30", "x@40")
