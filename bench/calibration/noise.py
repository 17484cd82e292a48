"""Contests without a difference, with four kinds of noise.

`equal`: independent and normal, all arms alike. `recorded`: normal, with the covariance of recorded
runs (final validation losses of ten schedules, each trained with the same twelve seeds,
docs/results/calibration_runs.csv), so that each arm has its own variance. `skewed`: the recorded
residuals themselves, whole seeds drawn with replacement, smoothed by a normal kernel; arms are not
exchanged, so that skew and tails stay where they are. Each contest takes its arms, the baseline
too, at random from the ten; arms beyond ten repeat some, with noise of their own. `wild`: as
equal, but one arm in eight, at least one and never the first two, is 30 times as noisy: optimizers
whose best rate lies at the edge of what is stable (docs/results/optimizers_small.md).
"""

import csv
import math
from pathlib import Path

import numpy as np

from report import verdict
from report.sources import read

RUNS = Path(__file__).parents[2] / "docs" / "results" / "calibration_runs.csv"
KINDS = ("equal", "recorded", "skewed", "wild")
WILD = 30  # standard deviations of the other arms
KERNEL = 0.5  # standard deviation of the smoothing, in those of the residuals


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
    pool: np.ndarray,
    kind: str,
    shape: tuple[int, int, int],
    rng: np.random.Generator,
    baseline: int | None = None,
) -> np.ndarray:
    """Losses of contests without a difference, (contests, arms, n); the first is the baseline.

    pool: `noise`. kind: one of KINDS. baseline: which arm of the pool it is; None: any.
    """
    contests, arms, n = shape
    if kind in ("equal", "wild"):
        alike = rng.standard_normal(shape) * sigma(pool) / math.sqrt(2)
        if kind == "wild":
            alike[:, max(2, arms - max(1, arms // 8)) :] *= WILD
        return alike
    places = rng.random((contests, len(pool)))
    if baseline is not None:
        places[:, baseline] = -1  # the first
    order = np.argsort(places, axis=1)
    losses = _recorded(pool, kind, contests, n, rng)
    found = np.take_along_axis(losses, order[:, :arms, None], axis=1)
    if (more := arms - len(pool)) > 0:  # the same arms again, with another draw of their own noise
        again = _recorded(pool, kind, contests, n, rng)
        again = again - again.mean(axis=1, keepdims=True) + losses.mean(axis=1, keepdims=True)
        found = np.concatenate([found, np.take_along_axis(again, order[:, :more, None], 1)], axis=1)
    return found


def _recorded(
    pool: np.ndarray, kind: str, contests: int, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Losses of all arms of the pool: (contests, arms of the pool, n)."""
    values, vectors = np.linalg.eigh(np.cov(pool))
    root = vectors * np.sqrt(np.maximum(values, 0))
    normal = np.einsum("ij,cjn->cin", root, rng.standard_normal((contests, len(pool), n)))
    if kind == "recorded":
        return normal
    seeds = rng.integers(0, pool.shape[1], (contests, n))
    residuals = pool[:, seeds].transpose(1, 0, 2) * math.sqrt(pool.shape[1] / (pool.shape[1] - 1))
    return (residuals + KERNEL * normal) / math.sqrt(1 + KERNEL**2)


def unpaired(losses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same contests with seeds of their own for each arm: each arm from another contest."""
    return np.stack([rng.permutation(losses[:, arm]) for arm in range(losses.shape[1])], axis=1)


def sigma(pool: np.ndarray) -> float:
    """Standard deviation of differences between two arms of the pool, as the planner pools it."""
    a, b = np.triu_indices(len(pool), 1)
    return math.sqrt(float(np.mean((pool[a] - pool[b]).var(axis=1, ddof=1))))
