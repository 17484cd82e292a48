"""Does the verdict call differences where there are none, and does the planner keep its word?

    python -m bench.calibration                     # prints the table of calibration.md
    python -m bench.calibration --from RUNS         # first takes the losses from a folder of runs

Contests are drawn from recorded runs: final validation losses of ten schedules, each trained with
the same seeds (docs/results/calibration_runs.csv). Of each arm its mean is taken away, so that no
arm is better; what is left is noise with its real shape, its real size in each arm and its real
correlation between the arms of a seed, and is drawn again with replacement. Few seeds drawn with
replacement come twice in a contest, which real seeds never do, and a t test of repeated values is
wrong; hence the smoothed bootstrap (Silverman & Young 1987), which adds normal noise of the same
covariance, a fraction WIDTH of its size, and scales the sum back. Plain draws are shown beside it.

False positives: the share of contests of ten arms in which any of the nine comparisons is called.
Power: the share of single comparisons with p < 0.05 when the arm is shifted by what the planner
says n seeds can show with 80 %. The p values are scipy's, over all contests at once;
tests/bench/test_calibration.py checks contest by contest that report/verdict.py calls the same.
"""

import argparse
import csv
import itertools
import math
from pathlib import Path

import numpy as np
from scipy import stats

from report import runs, verdict
from report.statistics import ALPHA, detectable

RUNS = Path(__file__).parents[1] / "docs" / "results" / "calibration_runs.csv"
CONTESTS, COMPARISONS = 2_000, 20_000
ARMS = 10
SEEDS = (3, 5, 8)
WIDTH = 0.5  # of the added noise, in standard deviations; Silverman's 0.9 S^(-1/5) for 20 seeds


def save(folder: str, path: Path) -> None:
    """Final validation losses of all finished runs under `folder`, for seeds that all arms have."""
    study = runs.read([folder])
    found = {arm: verdict.values_of(study, arm, "final_val_loss", True) for arm in study.arms}
    common = sorted(set.intersection(*(set(values) for values in found.values())))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["arm", "seed", "data_seed", "final_val_loss"])
        writer.writerows((arm, *pair, found[arm][pair]) for arm in found for pair in common)


def noise(path: Path) -> np.ndarray:
    """Losses less their arm's mean, nats; shape (arms, seeds)."""
    table: dict[str, list[float]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            table.setdefault(row["arm"], []).append(float(row["final_val_loss"]))
    losses = np.array(list(table.values()))
    return losses - losses.mean(axis=1, keepdims=True)


def draw(pool, shape, paired: bool, width: float, rng) -> np.ndarray:
    """Losses of contests, shape (contests, arms, n): arms in random roles, baseline first.

    paired: all arms of a contest have the same seeds; else each draws its own.
    """
    contests, arms, n = shape
    roles = rng.permuted(np.tile(np.arange(len(pool)), (contests, 1)), axis=1)[:, :arms, None]
    size = (contests, 1 if paired else arms, n)
    seeds = rng.integers(0, pool.shape[1], size)
    # weights over the seeds give normal noise with the covariance of the pool
    weights = rng.standard_normal((*size, pool.shape[1])) / math.sqrt(pool.shape[1])
    added = np.einsum("cans,cas->can", np.broadcast_to(weights, (*shape, pool.shape[1])),
                      pool[roles[..., 0]])  # fmt: skip
    return (pool[roles, seeds] + width * added) / math.sqrt(1 + width**2)


def p_values(losses: np.ndarray, paired: bool) -> np.ndarray:
    """Of each arm against the first, two-sided, not adjusted; shape (contests, arms - 1)."""
    base, others = losses[:, :1], losses[:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):  # plain draws can be one seed n times
        if paired:
            p = stats.ttest_1samp(others - base, 0.0, axis=-1).pvalue
        else:
            p = stats.ttest_ind(others, base, axis=-1, equal_var=False).pvalue
    return np.nan_to_num(p)


def called(p: np.ndarray) -> np.ndarray:
    """Whether Holm calls any arm of a contest: its first step asks the smallest p alone."""
    return p.min(axis=1) * p.shape[1] < ALPHA


def false_positives(pool, n: int, paired: bool, width: float, contests: int) -> float:
    """Share of contests without any difference in which one is called."""
    rng = np.random.default_rng([0, n, paired])
    losses = draw(pool, (contests, ARMS, n), paired, width, rng)
    return float(called(p_values(losses, paired)).mean())


def sigma(pool, paired: bool) -> float:
    """Standard deviation that the planner is told: of an arm, or of differences between two."""
    if not paired:
        return math.sqrt(float(np.mean(pool**2)))
    a, b = np.triu_indices(len(pool), 1)
    return math.sqrt(float(np.mean((pool[a] - pool[b]) ** 2)))


def power(pool, n: int, paired: bool, comparisons: int, pooled: bool) -> float:
    """Share of comparisons that see the planner's difference for n seeds, alpha 0.05.

    Over all pairs of arms. pooled: the planner is told one std for all of them, as in a report;
    else each pair's own.
    """
    rng = np.random.default_rng([1, n, paired])
    pairs = list(itertools.combinations(range(len(pool)), 2))
    seen = []
    for pair in pairs:
        two = pool[list(pair)]
        losses = draw(two, (comparisons // len(pairs), 2, n), paired, WIDTH, rng)
        told = sigma(pool if pooled else two, paired)
        losses[:, 1] -= detectable(told, n, paired=paired)
        seen.append(float((p_values(losses, paired) < ALPHA).mean()))
    return float(np.mean(seen))


def document(pool: np.ndarray) -> str:
    """The table of docs/results/calibration.md."""
    rows = []
    for paired, n in itertools.product((True, False), SEEDS):
        cells = ["paired t" if paired else "Welch", str(n)]
        for width in (WIDTH, 0.0):
            cells.append(f"{100 * false_positives(pool, n, paired, width, CONTESTS):.2f} %")
        cells.append(f"{detectable(sigma(pool, paired), n, paired=paired):.4f}")
        for pooled in (False, True):
            cells.append(f"{100 * power(pool, n, paired, COMPARISONS, pooled):.1f} %")
        rows.append("| " + " | ".join(cells) + " |")
    error = 100 * math.sqrt(0.05 * 0.95 / CONTESTS)
    return "\n".join([
        f"{pool.shape[0]} arms x {pool.shape[1]} seeds; standard deviation of an arm "
        f"{sigma(pool, False):.4f} nats, of differences in a pair {sigma(pool, True):.4f}.",
        "",
        "| test | seeds | contests with a false call | plain draws "
        "| planner's difference, nats | seen at it, each pair's std | seen at it, pooled std |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        f"{CONTESTS:,} contests of {ARMS} arms; limit: 5 % and two standard errors of "
        f"{error:.2f} points, {5 + 2 * error:.2f} %.",
        f"{COMPARISONS:,} comparisons; goal: 80 % within 3 points; standard error "
        f"{100 * math.sqrt(0.16 / COMPARISONS):.1f} points.",
    ]) + "\n"  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--from", dest="folder", help="take the losses from the runs in this folder"
    )
    options = parser.parse_args()
    if options.folder:
        save(options.folder, RUNS)
    print(document(noise(RUNS)), end="")


if __name__ == "__main__":
    main()
