"""Does the verdict call differences where there are none, and does the planner keep its word?

    python -m bench.calibration                     # prints the table of calibration.md
    python -m bench.calibration --from RUNS         # first takes the losses from a folder of runs

Contests are drawn from recorded runs: final validation losses of ten schedules, each trained with
the same seeds (docs/results/calibration_runs.csv). Each arm's mean is subtracted. What remains is
real noise, with the real correlation between the arms of a seed. Seeds are drawn with replacement,
and in each draw the arms are permuted at random: that makes them exchangeable, which is what "no
difference" means, and keeps the effect that a seed has on all of them.

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

from record.power import ALPHA, smallest_shown
from report import verdict
from report.sources import read

RUNS = Path(__file__).parents[1] / "docs" / "results" / "calibration_runs.csv"
CONTESTS, COMPARISONS = 2_000, 20_000
ARMS = 10
SEEDS = (3, 5, 8, 10)


def save(folder: str, path: Path) -> None:
    """Final validation losses of all finished runs under `folder`, for seeds that all arms have."""
    study = read([folder])
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


def draw(
    pool: np.ndarray, shape: tuple[int, int, int], paired: bool, rng: np.random.Generator
) -> np.ndarray:
    """Losses of contests, shape (contests, arms, n); the first arm is the baseline.

    paired: all arms of a contest have the same seeds; else each draws its own.
    """
    contests, arms, n = shape
    everyone = np.broadcast_to(np.arange(len(pool)), (contests, n, len(pool)))
    places = rng.permuted(everyone, axis=2)[:, :, :arms].transpose(0, 2, 1)
    seeds = rng.integers(0, pool.shape[1], (contests, 1 if paired else arms, n))
    return pool[places, seeds]


def p_values(losses: np.ndarray, paired: bool) -> np.ndarray:
    """Of each arm against the first, two-sided, not adjusted; shape (contests, arms - 1)."""
    base, others = losses[:, :1], losses[:, 1:]
    if paired:
        return stats.ttest_1samp(others - base, 0.0, axis=-1).pvalue
    return stats.ttest_ind(others, base, axis=-1, equal_var=False).pvalue


def called(p: np.ndarray) -> np.ndarray:
    """Whether Holm calls any arm of a contest: its first step tests only the smallest p."""
    return p.min(axis=1) * p.shape[1] < ALPHA


def false_positives(pool: np.ndarray, n: int, paired: bool, contests: int) -> float:
    """Share of contests without any difference in which one is called."""
    rng = np.random.default_rng([0, n, paired])
    return float(called(p_values(draw(pool, (contests, ARMS, n), paired, rng), paired)).mean())


def sigma(pool: np.ndarray, paired: bool) -> float:
    """Standard deviation given to the planner: of an arm, or of differences between two."""
    if not paired:
        return math.sqrt(float(np.mean(pool**2)))
    a, b = np.triu_indices(len(pool), 1)
    return math.sqrt(float(np.mean((pool[a] - pool[b]) ** 2)))


def power(pool: np.ndarray, n: int, paired: bool, comparisons: int) -> float:
    """Share of comparisons that see the planner's difference for n seeds, alpha 0.05."""
    losses = draw(pool, (comparisons, 2, n), paired, np.random.default_rng([1, n, paired]))
    losses[:, 1] -= smallest_shown(sigma(pool, paired), n, paired=paired)
    return float((p_values(losses, paired) < ALPHA).mean())


def document(pool: np.ndarray) -> str:
    """The table of docs/results/calibration.md."""
    normal = np.random.default_rng(0).standard_normal((ARMS, 2_000))
    rows = [
        f"| {'paired t' if paired else 'Welch'} | {n} "
        f"| {100 * false_positives(pool, n, paired, CONTESTS):.2f} % "
        f"| {smallest_shown(sigma(pool, paired), n, paired=paired):.4f} "
        f"| {100 * power(pool, n, paired, COMPARISONS):.1f} % "
        f"| {100 * power(normal, n, paired, COMPARISONS):.1f} % |"
        for paired, n in itertools.product((True, False), SEEDS)
    ]
    error = 100 * math.sqrt(0.05 * 0.95 / CONTESTS)
    lines = [
        f"{pool.shape[0]} arms x {pool.shape[1]} seeds; standard deviation of an arm "
        f"{sigma(pool, False):.4f} nats, of differences in a pair {sigma(pool, True):.4f}.",
        "",
        "| test | seeds | contests with a false call | planner's difference, nats | seen at it "
        "| so with normal noise |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        f"{CONTESTS:,} contests of {ARMS} arms; limit: 5 % and two standard errors of "
        f"{error:.2f} points, {5 + 2 * error:.2f} %.",
        f"{COMPARISONS:,} comparisons; goal: 80 % within 3 points; standard error "
        f"{100 * math.sqrt(0.16 / COMPARISONS):.1f} points.",
    ]
    return "\n".join(lines) + "\n"


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
