"""Runs that share seeds: the test of their mean, and where their spread comes from.

If seeds of initial weights are crossed with seeds of the data, two runs with the same seed, or the
same data, resemble each other. They are not independent, so a t-test over all of them calls too
much. Model: x_ij = mean + seed_i + data_j + rest_ij, all random, balanced.

    MSa = b sum_i (x_i. - x..)^2 / (a-1)      expects  b Va + Vr    (a seeds, variance Va)
    MSb = a sum_j (x_.j - x..)^2 / (b-1)      expects  a Vb + Vr    (b seeds of the data)
    MSr = sum_ij (x_ij - x_i. - x_.j + x..)^2 / ((a-1)(b-1))   expects  Vr

The variance of the mean, (b Va + a Vb + Vr) / ab, is estimated by (MSa + MSb - MSr) / ab, or the
largest of the three mean squares over ab where that is more (Searle et al., Variance Components,
1992, chapter 4, has the moments). t has min(a, b) - 1 degrees of freedom: with Satterthwaite's
the test calls up to 10 % falsely in a table of 5 by 2 (docs/results/calibration.md).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from report.run import Pair
from report.statistics import Floats, Test, paired_t, t_test

Values = Mapping[Pair, float]


class Split(NamedTuple):
    """Variances by their source. Unbiased estimates, so one of them may be below zero."""

    seeds: float  # initial weights
    data: float  # order of data
    rest: float  # what only both together give


def is_crossed(pairs: Collection[Pair]) -> bool:
    """Whether runs share a seed with some and not with all others.

    Seeds that all differ, or are all the same, leave the runs independent (given that seed).
    """
    return any(1 < len(set(factor)) < len(pairs) for factor in zip(*pairs, strict=True))


def grid(pairs: Iterable[Pair]) -> tuple[list[int], list[int]]:
    """Seeds and data seeds of a table without a hole: those left when the emptiest are dropped."""
    have = set(pairs)
    factors = (sorted({i for i, _ in have}), sorted({j for _, j in have}))
    while len(have) < len(factors[0]) * len(factors[1]):
        counts = {
            (k, level): sum(pair[k] == level for pair in have) / len(factors[1 - k])
            for k in (0, 1)
            for level in factors[k]
        }
        k, level = min(counts, key=lambda key: counts[key])
        factors[k].remove(level)
        have = {pair for pair in have if pair[k] != level}
    return factors


def table(values: Values) -> Floats:
    """Values of the whole table among them, shape (seeds, data seeds)."""
    seeds, data = grid(values)
    return np.array([[values[i, j] for j in data] for i in seeds])


def split(x: Floats) -> Split:
    """Variances of a table of at least two by two, by the method of moments."""
    (a, b), (of_seeds, of_data, rest) = x.shape, _mean_squares(x)
    return Split((of_seeds - rest) / b, (of_data - rest) / a, rest)


def mean_test(values: Values) -> Test | None:
    """t-test of the mean against 0, with regard to shared seeds; None below two values.

    In a table with holes the largest whole one counts.
    """
    if not is_crossed(values):
        return paired_t([*values.values()])
    x = table(values)
    return two_way_t(x) if min(x.shape) > 1 else paired_t(x.ravel())


def two_way_t(x: Floats) -> Test | None:
    """t-test of the mean of a table against 0; None without any spread to test with."""
    if np.ptp(x) == 0:
        return paired_t(x.ravel())
    squares = _mean_squares(x)
    variance = max(squares[0] + squares[1] - squares[2], *squares) / x.size
    return t_test(float(x.mean()), math.sqrt(variance), min(x.shape) - 1)


def _mean_squares(x: Floats) -> tuple[float, float, float]:
    """MSa, MSb, MSr of the table.

    By hand: statsmodels has them only by a formula over a pandas frame, which is far slower.
    """
    (a, b), mean = x.shape, x.mean()
    rows, columns = x.mean(axis=1), x.mean(axis=0)
    rest = x - rows[:, None] - columns + mean
    return (
        float(b * ((rows - mean) ** 2).sum() / (a - 1)),
        float(a * ((columns - mean) ** 2).sum() / (b - 1)),
        float((rest**2).sum() / ((a - 1) * (b - 1))),
    )
