"""The figures of a report, as plotly objects: one function per figure.

report/series.py gives their data, report/drawing.py draws their parts. A figure over steps keeps
its steps in tokens and seconds in layout.meta.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from report import drawing, hellaswag, inside_figures, series, sharpness, step_figures
from report.drawing import Figure, Style, styles
from report.formats import axis_words, loss, metric_words, short
from report.grid_figures import grid_maps, sensitivity
from report.judgement import Judgement
from report.leaderboard import Row
from report.series import Points
from report.speedups import AXES, Speedup
from report.study import Study

NOISY_POINTS = 200  # of a curve with a band: the line is a mean that the eye can follow
FEW_POINTS = 40  # of a curve: so many are marked one by one
MANY = (
    f"Lines: means over seeds; bands of more than {drawing.MOST_LABELS} arms would hide each "
    "other. Double-click shows everything."
)

Look = Mapping[str, Style]  # by arm


def figures(study: Study, judgement: Judgement) -> list[Figure]:
    """All figures for which there is something to draw."""
    look = styles(study)
    drawn = [
        _final_losses(judgement, look),
        _val_loss(study, judgement, look),
        _curve(TRAIN_LOSS, study, look),
        hellaswag.figure(study, look),
        _speedups(judgement, look),
        *(_curve(each, study, look) for each in OTHER_CURVES),
        sensitivity(study, judgement.sensitivity, look),
        grid_maps(study, look),
        *inside_figures.heat_maps(study, look),
        *sharpness.figures(study, look),
        step_figures.step_times(study, look),
        step_figures.bootstrap_means(study, look),
        step_figures.step_differences(study, look),
    ]
    return [figure for figure in drawn if figure is not None]


# ------------------------------------------------------------------------------- verdict figures


def _final_losses(judgement: Judgement, look: Look) -> Figure | None:
    """Every seed's loss, with mean and interval."""
    metric = metric_words(judgement.metric)
    shown = [row for row in judgement.rows if any(map(math.isfinite, row.values.values()))]
    if not shown:
        return None
    plot = drawing.new(xaxis={"title": metric})
    for row in reversed(shown):
        _finals_of(row, plot, look[row.arm])
    drawing.one_line_per_arm(plot, len(shown))
    note = (
        "Dots: runs. Bars: mean with its 95 % t interval, which includes the luck that all arms "
        "share on a seed."
    )
    said = drawing.in_words(f"Means of {metric}", {row.arm: loss(row.mean) for row in shown})
    return Figure("finals", f"{metric.capitalize()} of every seed", note, said, plot)


def _finals_of(row: Row, plot: Any, style: Style) -> None:
    ends = {pair: x for pair, x in row.values.items() if math.isfinite(x)}
    seeds = [seed for seed, _ in ends]
    hover = "seed %{customdata}: %{x:.4f}"
    drawing.dots(plot, style, [*ends.values()], size=7, opacity=0.5, hover=hover, seeds=seeds)
    if row.mean is not None and math.isfinite(row.mean):
        bar = {"width": 3, "color": style.colour}
        marker = {"size": 11, "symbol": "line-ns-open", "line": bar}
        hover = f"mean %{{x:.4f}}, n = {row.n}"
        drawing.centre(plot, style, row.mean, row.low, row.high, marker, hover)


def _speedups(judgement: Judgement, look: Look) -> Figure | None:
    """All axes for each arm."""
    plot = drawing.new(xaxis={"title": "speed-up to the baseline's final loss"})
    for row in judgement.rows:
        found = {axis: row.speedups[axis] for axis in AXES if axis in row.speedups}
        reached = {a: s for a, s in found.items() if s.ratio > 0 and math.isfinite(s.ratio)}
        if reached:
            _speedups_of(reached, plot, look[row.arm])
    if not plot.data:
        return None
    drawing.zero_line(plot, 1)
    plot.update_layout(
        height=90 + 30 * len(AXES) + 12 * len(judgement.rows),
        scattermode="group",
        scattergap=0.3,
        yaxis={"range": [-0.6, len(AXES) - 0.4]},
    )
    note = (
        "What the baseline spends to reach its final loss, divided by what the arm spends to reach "
        "the same loss: above 1 is faster. Arms that never reach it are not drawn."
    )
    ratios = {row.arm: row.speedups["tokens"].words for row in judgement.rows if row.speedups}
    said = drawing.in_words("Speed-ups in tokens", ratios)
    return Figure("speedups", "Speed-up on four axes", note, said, plot)


def _speedups_of(reached: Mapping[str, Speedup], plot: Any, style: Style) -> None:
    found = reached.values()
    error = {
        "type": "data",
        "symmetric": False,
        "color": style.colour,
        "thickness": 1.5,
        "array": [0 if s.high is None else s.high - s.ratio for s in found],
        "arrayminus": [0 if s.low is None else s.ratio - s.low for s in found],
    }
    plot.add_scatter(
        x=[s.ratio for s in found],
        y=[axis_words(axis) for axis in reached],
        mode="markers",
        meta={"arm": style.arm},
        name=style.label,
        marker={"color": style.colour, "size": 11, "symbol": style.symbol},
        error_x=error,
        hovertemplate=style.hover("%{x:.2f} x in %{y}"),
    )


# ---------------------------------------------------------------------------------------- curves


@dataclass(frozen=True)
class _Curve:
    """A figure of one column of the updates over steps.

    axis: title of y. cut: y ends where the curve is after a twentieth of the run. log: of y.
    band: from the lowest to the highest value of any seed. folded: closed at first.
    """

    column: str
    id: str
    title: str
    axis: str
    note: str
    cut: bool = False
    log: bool = False
    band: bool = True
    folded: bool = False


TRAIN_LOSS = _Curve(
    "train/loss",
    "train_loss",
    "Training loss",
    "training loss, nats per token",
    "Line: mean. Band: lowest and highest value of any seed, so that spikes show. Double-click "
    "shows everything.",
    cut=True,
)
VAL_LOSS = _Curve(
    "val/loss",
    "val_loss",
    "Validation loss",
    "val loss, nats per token",
    "Line: mean over seeds. Band: lowest and highest seed. Double-click shows everything.",
)
OTHER_CURVES = (
    _Curve(
        "train/lr",
        "lr",
        "Learning rate",
        "learning rate",
        "As recorded at each update, mean over seeds.",
        band=False,
    ),
    _Curve(
        "train/grad_norm",
        "grad_norm",
        "Gradient norm",
        "gradient norm",
        "L2 norm before clipping. Band: lowest and highest value of any seed.",
        log=True,
    ),
    _Curve(
        "time/train_seconds",
        "time",
        "Cumulative time",
        "seconds of training",
        "Clock of the training loop: without evaluation, checkpoints, compilation and logging.",
        folded=True,
    ),
    _Curve(
        "train/stability_score",
        "stability",
        "Stability score",
        "stability score",
        "1 / (1 + std of all losses so far). It punishes learning: a flat run scores 1.",
        folded=True,
    ),
    _Curve(
        "train/spike_score",
        "spikes",
        "Spike score",
        "spike score, %",
        "Percent of the updates so far whose loss or gradient norm is an outlier.",
        folded=True,
    ),
    _Curve(
        "inside/gain_hidden",
        "gain",
        "Local gain of hidden matrices",
        "norm of update / (lr x norm of gradient)",
        "By how much the optimizer scales the gradient: median over hidden matrices.",
        log=True,
        folded=True,
    ),
    _Curve(
        "inside/update_ratio_hidden",
        "update_ratio",
        "Update over weight of hidden matrices",
        "norm of update / norm of weights",
        "Median over hidden matrices; by a rule of thumb 1e-3 is healthy.",
        log=True,
        folded=True,
    ),
    _Curve(
        "inside/cosine_hidden",
        "cosine",
        "Cosine of update and gradient",
        "cosine of update and minus gradient",
        "Median over hidden matrices: 1 is down the gradient of this batch.",
        folded=True,
    ),
    _Curve(
        "inside/noise_scale",
        "noise_scale",
        "Gradient noise scale",
        "tokens",
        "Simple noise scale (McCandlish et al. 2018), ratio of moving averages: batches far below "
        "it average noise, far above it they save few updates. Dotted: the runs' batch.",
        log=True,
        folded=True,
    ),
)


def _readable(curve: _Curve, arms: int) -> _Curve:
    """The figure without bands where they would hide each other."""
    many = curve.band and arms > drawing.MOST_LABELS
    return replace(curve, band=False, note=MANY) if many else curve


def _curve(curve: _Curve, study: Study, look: Look) -> Figure | None:
    """One column for all arms."""
    arms = series.shown_runs(study)
    most = series.pieces(len(arms))
    curve = _readable(curve, len(arms))
    if curve.band:
        most = min(most, NOISY_POINTS)
    found = {arm: series.buckets(runs, curve.column, most) for arm, runs in arms.items()}
    shown = {arm: points for arm, points in found.items() if points}
    if not shown:
        return None
    plot = drawing.new(yaxis={"title": curve.axis, "type": "log" if curve.log else "linear"})
    bottoms = []
    for arm, points in shown.items():
        low = np.maximum(points.low, points.mean.min() / 100) if curve.log else points.low
        drawing.curve(plot, look[arm], points, low if curve.band else None)
        bottoms.append(low.min())
    tops = [points.mean[len(points.mean) // 20] for points in shown.values()] if curve.cut else []
    if curve.column == "inside/noise_scale":
        for tokens in inside_figures.batches(study):
            drawing.level(plot, tokens)
    note, said = _steps(plot, shown, look, tops, bottoms, curve)
    flat = max(points.high.max() for points in shown.values()) <= min(bottoms)
    return Figure(curve.id, curve.title, note, said, plot, curve.folded or bool(flat))


def _val_loss(study: Study, judgement: Judgement, look: Look) -> Figure | None:
    """Validation loss, mean and extremes over seeds; y begins after a tenth of the run."""
    found = {arm: series.evaluations(runs) for arm, runs in series.shown_runs(study).items()}
    shown = {arm: points for arm, points in found.items() if points}
    if not shown:
        return None
    plot = drawing.new(yaxis={"title": VAL_LOSS.axis})
    curve, tops = _readable(VAL_LOSS, len(shown)), []
    for arm, points in shown.items():
        count = len(points.steps)
        low = points.low if curve.band else None
        drawing.curve(plot, look[arm], points, low, marked=count <= FEW_POINTS)
        tops.append(points.mean[min(count - 1, max(1, count // 10))])
    bottoms = [points.low.min() for points in shown.values()]
    note, said = _steps(plot, shown, look, tops, bottoms, curve)
    if judgement.target is not None:
        drawing.level(plot, judgement.target)
        note += f" Dotted: the target, {loss(judgement.target)}."
    return Figure(VAL_LOSS.id, VAL_LOSS.title, note, said, plot)


def _steps(
    plot: Any,
    shown: Mapping[str, Points],
    look: Look,
    tops: Sequence[float],
    bottoms: Sequence[float],
    curve: _Curve,
) -> tuple[str, str]:
    """Axes and labels of curves over steps. Returns note and sentence of the figure.

    tops, bottoms: of the part of y that is shown; no tops: all of it.
    """
    drawing.over_steps(plot, {arm: points.axes for arm, points in shown.items()}, tops, bottoms)
    drawing.label_ends(plot, look, shown)
    height = max(tops or [points.mean.max() for points in shown.values()]) - min(bottoms)
    together = [" and ".join(arms) for arms in series.coinciding(shown, height)]
    note = (
        f"{curve.note} One on top of the other: {'; '.join(together)}." if together else curve.note
    )
    ends = {arm: short(float(points.mean[-1]), 5) for arm, points in shown.items()}
    return note, drawing.in_words(f"{curve.title} over the steps; at the end", ends)
