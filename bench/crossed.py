"""How often does a test of crossed seeds call a difference where there is none?

    python -m bench.crossed        # prints the table of docs/results/calibration.md

Tables of paired differences x_ij = seed_i + data_j + rest_ij without a difference, normal, for
several shares of the three sources. Rules: all cells as independent runs; the means per seed; the
method of moments with Satterthwaite's degrees of freedom; and report/crossed.py's, with the smaller
number of levels less one. tests/bench/test_crossed.py checks that the last is what the report does.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats

from record.power import ALPHA
from report.statistics import Floats

TABLES = 40_000
SHAPES = ((2, 2), (3, 2), (3, 3), (5, 2), (5, 3), (5, 5), (10, 3))
STDS = (  # of seeds, data, rest
    (0, 0, 1),
    (1, 0, 0),
    (0, 1, 0),
    (1, 1, 0),
    (1, 1, 1),
    (1, 0, 1),
    (0, 1, 1),
    (1, 0, 0.3),
    (0, 1, 0.3),
    (0.3, 0.3, 1),
    (1, 0.3, 0.1),
    (0.3, 1, 0.1),
)


def draw(shape: tuple[int, int], stds: tuple[float, ...], count: int, seed: int = 0) -> Floats:
    """Tables without a difference, shape (count, seeds, data seeds)."""
    (a, b), rng = shape, np.random.default_rng(seed)
    seeds, data = rng.standard_normal((count, a, 1)), rng.standard_normal((count, 1, b))
    rest = max(stds[2], 1e-9) * rng.standard_normal((count, a, b))
    return stds[0] * seeds + stds[1] * data + rest


def p_values(x: Floats) -> dict[str, Floats]:
    """Two-sided p value of each table by each rule."""
    _, a, b = x.shape
    mean, rows, columns = x.mean((1, 2)), x.mean(2), x.mean(1)
    of_seeds = b * rows.var(axis=1, ddof=1)
    of_data = a * columns.var(axis=1, ddof=1)
    rest = x - rows[:, :, None] - columns[:, None, :] + mean[:, None, None]
    of_rest = (rest**2).sum((1, 2)) / ((a - 1) * (b - 1))
    moments = of_seeds + of_data - of_rest
    largest = np.maximum.reduce([moments, of_seeds, of_data, of_rest])
    shares = of_seeds**2 / (a - 1) + of_data**2 / (b - 1) + of_rest**2 / ((a - 1) * (b - 1))
    cells = x.reshape(len(x), -1)

    def p(variance: Floats, df: float | Floats) -> Floats:
        return 2 * stats.t.sf(abs(mean) / np.sqrt(variance / (a * b)), df)

    return {
        "cells as independent": p(cells.var(axis=1, ddof=1), a * b - 1),
        "means per seed": p(of_seeds, a - 1),
        "Satterthwaite": p(largest, np.maximum(moments**2 / shares, 1)),
        "report": p(largest, min(a, b) - 1),
    }


def document() -> str:
    """Worst and mean share of false calls over STDS, in percent."""
    lines = [
        "| seeds x data seeds | cells as independent | means per seed | Satterthwaite | report |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for shape in SHAPES:
        found: dict[str, list[float]] = {}
        for stds in STDS:
            for rule, p in p_values(draw(shape, stds, TABLES)).items():
                found.setdefault(rule, []).append(100 * float((p < ALPHA).mean()))
        cells = (f"{max(each):.1f} ({np.mean(each):.1f})" for each in found.values())
        lines.append(f"| {shape[0]} x {shape[1]} | {' | '.join(cells)} |")
    error = 100 * np.sqrt(ALPHA * (1 - ALPHA) / TABLES)
    lines += [
        "",
        f"Largest (mean) share of {TABLES:,} tables without a difference that are called, over "
        f"{len(STDS)} shares of the sources, in percent; standard error {error:.2f} points.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    argparse.ArgumentParser("python -m bench.crossed", description=__doc__).parse_args()
    print(document(), end="")
