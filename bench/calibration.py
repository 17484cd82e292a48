"""Do verdicts keep their word? False positives and power of the report, by simulation.

    python bench/calibration.py [PATH...] [--contests 2000] [--arms 10] [--seeds 3 5 8]

Every contest is drawn with arms that do not differ: a loss is the seed's luck, common to all arms,
plus the run's own. With PATH both are resampled from the residuals of recorded runs (loss minus the
mean of its arm; seeds' means over arms apart); without, they are normal. The tests are those of
report/statistics.py: paired t against the baseline, Holm over the arms. A contest is wrong when it
calls any arm better or worse. Then one arm is made better by the difference that the planner gives
for n seeds, and the share of contests that show it is the power.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent))

from report.runs import read
from report.statistics import ALPHA, POWER, detectable, holm, paired_t
from report.verdict import values_of

LUCK, OWN = 0.003, 0.0015  # nats; std of the seeds' common luck, and of a run's own


def residuals(paths):
    """(common, own) residuals of recorded runs, scaled to the variance that they estimate."""
    study = read(paths)
    losses = [values_of(study, arm, "final_val_loss", True) for arm in study.arms]
    pairs = sorted(set.intersection(*(set(each) for each in losses)))
    table = np.array([[each[pair] for pair in pairs] for each in losses])
    arms, seeds = table.shape
    if min(arms, seeds) < 2:
        sys.exit(f"{paths}: {arms} arms x {seeds} common seeds; at least 2 x 2 are needed")
    common = table.mean(axis=0) - table.mean()
    own = table - table.mean(axis=1, keepdims=True) - common
    own = own.ravel() * math.sqrt(arms * seeds / ((arms - 1) * (seeds - 1)))
    return common * math.sqrt(seeds / (seeds - 1)), own


def draw(rng, sources, arms, seeds):
    """Final losses of a contest without differences, (arms, seeds)."""
    if sources is None:
        return LUCK * rng.standard_normal(seeds) + OWN * rng.standard_normal((arms, seeds))
    return smooth(rng, sources[0], seeds) + smooth(rng, sources[1], (arms, seeds))


def smooth(rng, values, shape):
    """Smoothed bootstrap (Silverman 1986, 6.4), same variance: few values would tie too often."""
    spread = np.sqrt(np.mean(values**2))
    width = 1.06 * len(values) ** -0.2
    drawn = rng.choice(values, shape) + width * spread * rng.standard_normal(shape)
    return drawn / math.sqrt(1 + width**2)


def p_values(gaps):
    """Paired t of each row, (..., seeds) to (...): as report.statistics.paired_t, all at once."""
    return stats.ttest_1samp(gaps, 0.0, axis=-1).pvalue


def false_positives(contests):
    """Share of contests (contests, arms, seeds) in which any arm is called better or worse."""
    p = p_values(contests[:, 1:] - contests[:, :1])
    wrong = p.min(axis=1) < ALPHA / p.shape[1]  # the first step of Holm: if it fails, all do
    for gaps, own, called in zip(contests[:50, 1:] - contests[:50, :1], p, wrong, strict=False):
        told = [paired_t(gap).p for gap in gaps]  # the report's own functions agree
        assert np.allclose(told, own)
        assert any(x < ALPHA for x in holm(told)) == called
    return wrong.mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", metavar="PATH")
    parser.add_argument("--contests", type=int, default=2000)
    parser.add_argument("--arms", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 8])
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    sources = residuals(options.paths) if options.paths else None
    own = OWN if sources is None else float(np.sqrt(np.mean(sources[1] ** 2)))
    error = math.sqrt(ALPHA * (1 - ALPHA) / options.contests)
    limit = ALPHA + 2 * error
    print(f"{options.contests} contests of {options.arms} arms; own std {own:.5f}")
    print("| seeds | false positives (family-wise) | limit | planner's difference | power |")
    print("| --- | --- | --- | --- | --- |")
    failed = False
    for seeds in options.seeds:
        times = range(options.contests)
        rate = false_positives(np.array([draw(rng, sources, options.arms, seeds) for _ in times]))
        gap = detectable(own * math.sqrt(2), seeds, paired=True)
        pairs = np.array([draw(rng, sources, 2, seeds) for _ in times])
        power = (p_values(pairs[:, 0] - pairs[:, 1] - gap) < ALPHA).mean()
        failed |= rate > limit or abs(power - POWER) > 0.03
        print(f"| {seeds} | {rate:.4f} | {limit:.4f} | {gap:.5f} | {power:.3f} |", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
