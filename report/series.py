"""The data of the figures: curves of an arm's runs cut into pieces, and times of updates.

A curve is cut into at most MOST_POINTS pieces, each with its mean, minimum and maximum, so that no
spike is lost to the eye.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from report.run import Run
from report.speedups import cost_at
from report.statistics import Floats
from report.study import Study

MOST_POINTS, LEAST_POINTS = 500, 60  # per curve
ALL_POINTS = 6_000  # per figure: many arms get fewer each
STEP_MS = "time/step_ms"
LINE_WIDTH = 0.005  # of a figure's height


class Points(NamedTuple):
    """A curve over all seeds of an arm. All arrays have one value per piece of the run.

    axes: the steps in "tokens" and "seconds".
    """

    steps: Floats
    mean: Floats
    low: Floats
    high: Floats
    axes: dict[str, list[float]]


def shown_runs(study: Study) -> dict[str, list[Run]]:
    """Reporting runs with numbers, by arm; a diverged one too, up to where it went."""
    found = {arm: [run for run in study.of(arm) if len(run.train["step"])] for arm in study.arms}
    return {arm: runs for arm, runs in found.items() if runs}


def pieces(arms: int) -> int:
    """Pieces that each of `arms` curves is cut into."""
    return max(LEAST_POINTS, min(MOST_POINTS, ALL_POINTS // max(1, arms)))


def buckets(runs: Sequence[Run], column: str, most: int) -> Points | None:
    """One column of the updates in at most `most` pieces of equal length; None without a number."""
    clock = column.startswith("time/")  # shown only of runs that had their machine
    have = [run for run in runs if column in run.train and not (clock and run.shared)]
    if not have:
        return None
    values = np.concatenate([run.train[column] for run in have])
    finite = np.isfinite(values)
    if not finite.any():
        return None
    steps, tokens, seconds = (
        np.concatenate([_column(run, name) for run in have])[finite]
        for name in ("step", "tokens", "time/train_seconds")
    )
    count = min(most, int(steps.max()) + 1)
    where = (steps * count // (steps.max() + 1)).astype(np.intp)
    _, piece = np.unique(where, return_inverse=True)
    return _points(piece, steps, values[finite], tokens, seconds)


def evaluations(runs: Sequence[Run], column: str = "val/loss") -> Points | None:
    """A column of the evaluations, each step a piece; None without a number."""
    rows = []
    for run in runs:
        values = run.val.get(column, np.full(len(run.val["step"]), np.nan))
        costs = _cost(run, "tokens"), _cost(run, "seconds")
        rows.append(np.column_stack([run.val["step"], values, *costs]))
    table = np.concatenate(rows)
    steps, values, tokens, seconds = table[np.isfinite(table[:, 1])].T
    if not len(steps):
        return None
    _, piece = np.unique(steps, return_inverse=True)
    return _points(piece, steps, values, tokens, seconds)


def _points(piece: NDArray[np.intp], steps: Floats, values: Floats, *costs: Floats) -> Points:
    """Means and extremes by piece. costs: tokens and seconds. All of one shape, (values,)."""
    size = np.bincount(piece)
    low, high = np.full(len(size), np.inf), np.full(len(size), -np.inf)
    np.minimum.at(low, piece, values)
    np.maximum.at(high, piece, values)
    mean_steps, mean, tokens, seconds = (
        np.bincount(piece, weights=x) / size for x in (steps, values, *costs)
    )
    axes = {"tokens": _rounded(tokens), "seconds": _rounded(seconds)}
    return Points(mean_steps, mean, low, high, axes)


def coinciding(curves: Mapping[str, Points], height: float) -> list[list[str]]:
    """Arms whose mean curves nowhere differ by more than a line's width, in groups.

    height: of the figure, in the unit of the curves.
    """
    width = LINE_WIDTH * height
    groups: list[list[str]] = []
    for arm, points in curves.items():
        for group in groups:
            first = curves[group[0]]
            if np.array_equal(first.steps, points.steps) and np.all(
                np.abs(first.mean - points.mean) <= width
            ):
                group.append(arm)
                break
        else:
            groups.append([arm])
    return [group for group in groups if len(group) > 1]


def _column(run: Run, name: str) -> Floats:
    """A column of the updates, NaN if it is not recorded."""
    return run.train.get(name, np.full(len(run.train["step"]), np.nan))


def _cost(run: Run, axis: str) -> Floats:
    """What was spent before each evaluation, NaN if it is not recorded."""
    steps = run.val["step"]
    found = cost_at(run, axis, steps)
    return np.full(len(steps), np.nan) if found is None else found


def _rounded(x: Floats) -> list[float]:
    """Six digits: more than a screen has; what is not known is left at zero."""
    return [float(f"{v:.6g}") if math.isfinite(v) else 0.0 for v in x]


def step_times(study: Study) -> dict[str, list[Floats]]:
    """Milliseconds of the updates by arm and run, without the first, which warms up."""
    found = {}
    for arm, runs in shown_runs(study).items():
        fair = [run for run in runs if STEP_MS in run.train and not run.shared]
        series = [run.train[STEP_MS][1:] for run in fair]
        finite = [x[np.isfinite(x)] for x in series]
        if some := [x for x in finite if len(x) > 1]:
            found[arm] = some
    return found


def step_gaps(study: Study, arm: str, base: str) -> Floats:
    """Step times of `arm` minus those of `base`, ms, at the same updates of the same seeds."""
    twins = {run.pair: run for run in study.of(base)}
    gaps = [_gaps(run, twins[run.pair]) for run in study.of(arm) if run.pair in twins]
    return np.concatenate(gaps) if gaps else np.array([])


def _gaps(run: Run, twin: Run) -> Floats:
    """Differences in ms at the updates that both runs have, without the first."""
    if STEP_MS not in run.train or STEP_MS not in twin.train or run.shared or twin.shared:
        return np.array([])
    _, a, b = np.intersect1d(run.train["step"], twin.train["step"], return_indices=True)
    gaps = (run.train[STEP_MS][a] - twin.train[STEP_MS][b])[1:]
    return np.asarray(gaps[np.isfinite(gaps)])
