"""Speed-up over horizons, on curves whose answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from report.horizons import horizons, section
from report.study import Study, by_length
from tests.report.contest_folder import configuration
from tests.report.studies import a_run

BATCH = 4096


def power_law(tokens, multiplier=1.0, *, floor=3.0, exponent=0.3):
    """E + A (k D)^-a: an arm whose tokens are worth k of the baseline's."""
    return floor + 60 * (multiplier * tokens) ** -exponent


def study(lengths, losses, seeds=(1, 2, 3)):
    """losses: {arm: (steps, seed) -> final loss}; the first is the baseline."""
    runs = []
    for arm, loss in losses.items():
        for steps in lengths:
            for seed in seeds:
                config = configuration(arm, seed, steps=steps)
                run = a_run(arm, seed, loss(steps, seed), config=config)
                runs.append(replace(run, length=steps))
    return by_length(Study("c", runs, next(iter(losses)), None, list(losses)))


def of(multiplier, exponent=0.3, trend=0.0):
    """Final losses of an arm whose speed-up is `multiplier` at 2^18 tokens, and goes as D^trend."""

    def loss(steps, _):
        tokens = steps * BATCH
        k = multiplier * (tokens / 2**18) ** trend
        return power_law(tokens, k, exponent=exponent)

    return loss


@pytest.mark.parametrize("multiplier", [0.7, 1.0, 1.3, 1.7])
@pytest.mark.parametrize("exponent", [0.2, 0.4])
def test_known_speedup_is_found_at_every_length_within_one_percent(multiplier, exponent):
    lengths = (32, 64, 128, 256)
    base, arm = of(1, exponent=exponent), of(multiplier, exponent=exponent)
    found = horizons(study(lengths, {"base": base, "arm": arm}))["arm"]
    ratios = {d // BATCH: s.ratio for d, s in found.speedups.items()}
    assert [*ratios] == [*lengths]
    outside = {1.0: (), 0.7: (256,)}.get(multiplier, (32,))
    for steps, ratio in ratios.items():
        if steps in outside:
            assert math.isnan(ratio)
        else:
            assert ratio == pytest.approx(multiplier, rel=0.01)
    assert found.per_doubling.ratio == pytest.approx(1, abs=0.01)


def test_trend_is_by_how_much_a_doubling_changes_the_speedup():
    """k ~ D^-0.2 of the arm's tokens; of the baseline's, D = k D', so k ~ D^(-0.2 / 0.8)."""
    data = study((32, 64, 128, 256), {"base": of(1), "arm": of(1.5, trend=-0.2)})
    found = horizons(data)["arm"]
    assert found.per_doubling.ratio == pytest.approx(2 ** (-0.2 / 0.8), abs=0.01)
    ratios = [s.ratio for s in found.speedups.values() if s.ratio == s.ratio]
    assert ratios == sorted(ratios, reverse=True)


def test_outside_the_lengths_of_the_arm_there_are_words_and_no_number():
    data = study((32, 64, 128), {"base": of(1), "fast": of(1.5), "slow": of(0.5), "same": of(1)})
    found = horizons(data)
    words = {arm: [s.words for s in each.speedups.values()] for arm, each in found.items()}
    assert words["fast"][0] == "below its shortest length"
    assert words["slow"][2] == "beyond its longest length"
    assert words["same"] == ["1.00 x"] * 3


def test_seeds_on_both_sides_of_the_lengths_are_counted_by_side():
    factors = {1: 1.5, 2: 0.5, 3: 1.0}
    losses = {"base": of(1), "arm": lambda d, s: of(factors[s])(d, s)}
    found = horizons(study((32, 33, 34), losses))["arm"].speedups
    both = "below its shortest length for 1 of 3 seeds, beyond its longest length for 1 of 3 seeds"
    assert {s.words for s in found.values()} == {both}


def test_interval_over_five_seeds_is_students_on_the_logarithms():
    factors = [1.21, 1.28, 1.3, 1.33, 1.4]
    losses = {"base": of(1), "arm": lambda d, s: of(factors[s - 1])(d, s)}
    s = horizons(study((32, 64, 128, 256), losses, range(1, 6)))["arm"].speedups[128 * BATCH]
    logs = np.log(factors)
    ends = np.exp(stats.t.interval(0.95, 4, logs.mean(), stats.sem(logs)))
    assert s.interval == "95 %"
    assert (s.low, s.high) == pytest.approx(tuple(ends), rel=0.01)


def test_three_seeds_give_their_range_paired_by_seed():
    data = study((32, 64, 128), {"base": of(1), "arm": lambda d, s: of(1 + 0.1 * s)(d, s)})
    s = horizons(data)["arm"].speedups[128 * BATCH]
    assert s.interval == "range of seeds"
    assert (s.low, s.high) == pytest.approx((1.1, 1.3), rel=0.01)
    assert s.ratio == pytest.approx(stats.gmean([1.1, 1.2, 1.3]), rel=0.01)


def test_fewer_than_three_lengths_say_nothing_and_a_missing_run_leaves_its_seed_out():
    losses = {"base": of(1), "arm": of(1.3)}
    assert horizons(study((32, 64), losses)) == {}
    assert section(study((32, 64), losses)) is None
    whole = study((32, 64, 128), losses)
    lost = [r for r in whole.runs if (r.arm, r.seed) != ("arm @ 64", 2)]
    assert horizons(replace(whole, runs=lost))["arm"].speedups[64 * BATCH].ratio > 1
    none = [replace(r, status="stopped") if r.arm == "arm @ 64" else r for r in whole.runs]
    assert horizons(replace(whole, runs=none))["arm"].why.startswith("no seed has finished")


def test_loss_that_rises_with_length_is_said_instead_of_interpolated():
    data = study((32, 64, 128), {"base": of(1), "arm": lambda d, s: 3.5 + (d == 64) * 0.1})
    assert "does not fall" in horizons(data)["arm"].why
    assert section(data).lines == ["arm: a final loss does not fall from length to length"]


def test_section_names_lengths_in_tokens_and_the_trend():
    (table,) = section(study((32, 64, 128), {"base": of(1), "arm": of(1.3)})).tables
    tokens = [f"{steps * BATCH:,} tokens" for steps in (32, 64, 128)]
    assert table.columns == ("arm", "against", *tokens, "per doubling")
    assert table.rows[0][2] == "below its shortest length"
    assert table.rows[0][4].startswith("1.30 x (1.30 to 1.30)")


@pytest.mark.parametrize("arm", ["arm", "base"])
def test_speedups_are_not_those_of_the_seeds_that_did_not_diverge(arm):
    data = study((32, 64, 128), {"base": of(1), "arm": of(1.3)})
    runs = [
        replace(run, status="diverged") if (run.arm, run.seed) == (f"{arm} @ 128", 2) else run
        for run in data.runs
    ]
    (found,) = horizons(replace(data, runs=runs)).values()
    assert found.speedups == {}
    assert found.why == "1 run of it or of base diverged"
