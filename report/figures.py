"""The figures of a report, as plotly objects: one function per figure.

report/series.py gives their data, report/drawing.py draws their parts. A figure over steps keeps
its steps in tokens and seconds in layout.meta.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from report import drawing, series
from report.drawing import BASELINE_COLOUR, Style, styles
from report.formats import axis_words, metric_words
from report.judgement import Judgement
from report.leaderboard import Row
from report.speedups import AXES, Speedup
from report.statistics import Floats, block_means
from report.study import Study, without_length

NOISY_POINTS = 200  # of a curve with a band: the line is a mean that the eye can follow
FEW_POINTS = 40  # of a curve: so many are marked one by one
FAR_POINTS = 15  # slowest updates shown beside a box

Look = Mapping[str, Style]  # by arm


class Figure(NamedTuple):
    """id: for links. note: a sentence that says how to read it. plot: a plotly Figure."""

    id: str
    title: str
    note: str
    plot: Any


def figures(study: Study, judgement: Judgement) -> list[Figure]:
    """All figures for which there is something to draw."""
    look = styles(study)
    drawn = [
        _differences(judgement, look),
        _final_losses(judgement, look),
        _val_loss(study, judgement, look),
        _curve(TRAIN_LOSS, study, look),
        _speedups(judgement, look),
        *(_curve(each, study, look) for each in OTHER_CURVES),
        _sensitivity(study, judgement, look),
        _step_times(study, look),
        _bootstrap_means(study, look),
        _step_differences(study, look),
    ]
    return [figure for figure in drawn if figure is not None]


# ------------------------------------------------------------------------------- verdict figures


def _differences(judgement: Judgement, look: Look) -> Figure | None:
    """Each arm's difference to the baseline, with its interval and the pairs."""
    compared = [
        (row.arm, row.comparison, row.comparison.difference)
        for row in judgement.rows
        if row.comparison and row.comparison.difference is not None
    ]
    if not compared:
        return None
    metric = metric_words(judgement.metric)
    plot = drawing.new(xaxis={"title": f"difference in {metric}: left is better"})
    for arm, c, difference in reversed(compared):
        seeds = [seed for seed, _ in c.differences]
        hover = "seed %{customdata}: %{x:+.4f}"
        gaps = list(c.differences.values())
        drawing.dots(plot, look[arm], gaps, size=6, opacity=0.45, hover=hover, seeds=seeds)
        p = "–" if c.p_holm is None else f"{c.p_holm:.3g}"
        hover = f"{c.words}: %{{x:+.4f}}<br>{c.method}, p (Holm) = {p}"
        marker = {"size": 12, "symbol": "diamond"}
        drawing.centre(plot, look[arm], difference, c.low, c.high, marker, hover)
    drawing.zero_line(plot, 0)
    drawing.one_line_per_arm(plot, len(compared))
    note = (
        "Diamonds: mean difference to the baseline with its 95 % t interval. Dots: the pairs, one "
        "per seed. An interval that contains zero leaves open which is better."
    )
    return Figure("differences", "Difference to the baseline", note, plot)


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
    return Figure("finals", f"{metric.capitalize()} of every seed", note, plot)


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
    return Figure("speedups", "Speed-up on four axes", note, plot)


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
    band: from the lowest to the highest value of any seed.
    """

    column: str
    id: str
    title: str
    axis: str
    note: str
    cut: bool = False
    log: bool = False
    band: bool = True


TRAIN_LOSS = _Curve(
    "train/loss",
    "train_loss",
    "Training loss",
    "training loss, nats per token",
    "Line: mean. Band: lowest and highest value of any seed, so that spikes show. Double-click "
    "shows everything.",
    cut=True,
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
    ),
    _Curve(
        "train/stability_score",
        "stability",
        "Stability score",
        "stability score",
        "1 / (1 + std of all losses so far). It punishes learning: a flat run scores 1.",
    ),
    _Curve(
        "train/spike_score",
        "spikes",
        "Spike score",
        "spike score, %",
        "Percent of the updates so far whose loss or gradient norm is an outlier.",
    ),
)


def _curve(curve: _Curve, study: Study, look: Look) -> Figure | None:
    """One column for all arms."""
    arms = series.shown_runs(study)
    most = series.pieces(len(arms))
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
    tops = [points.mean[len(points.mean) // 20] for points in shown.values()]
    axes = {arm: points.axes for arm, points in shown.items()}
    drawing.over_steps(plot, axes, tops if curve.cut else [], bottoms)
    return Figure(curve.id, curve.title, curve.note, plot)


def _val_loss(study: Study, judgement: Judgement, look: Look) -> Figure | None:
    """Validation loss, mean and extremes over seeds; y begins after a tenth of the run."""
    found = {arm: series.evaluations(runs) for arm, runs in series.shown_runs(study).items()}
    shown = {arm: points for arm, points in found.items() if points}
    if not shown:
        return None
    plot = drawing.new(yaxis={"title": "val loss, nats per token"})
    tops = []
    for arm, points in shown.items():
        count = len(points.steps)
        drawing.curve(plot, look[arm], points, points.low, marked=count <= FEW_POINTS)
        tops.append(points.mean[min(count - 1, max(1, count // 10))])
    note = "Line: mean over seeds. Band: lowest and highest seed. Double-click shows everything."
    if judgement.target is not None:
        line = {"color": BASELINE_COLOUR, "width": 1, "dash": "dot"}
        plot.add_hline(y=judgement.target, line=line)
        note += " Dotted: the target."
    axes = {arm: points.axes for arm, points in shown.items()}
    drawing.over_steps(plot, axes, tops, [points.low.min() for points in shown.values()])
    return Figure("val_loss", "Validation loss", note, plot)


def _sensitivity(study: Study, judgement: Judgement, look: Look) -> Figure | None:
    """Loss over learning rates, from the tuning runs; an arm of several lengths is drawn once."""
    if not judgement.sensitivity:
        return None
    first = {without_length(arm): arm for arm in reversed(study.arms)}  # of its lengths
    axis = {"title": "learning rate", "type": "log"}
    plot = drawing.new(xaxis=axis, yaxis={"title": "final val loss"})
    for arm, s in judgement.sensitivity.items():
        style = look[first[arm]]
        plot.add_scatter(
            x=list(s.losses),
            y=[min(loss, s.initial) for loss in s.losses.values()],
            mode="lines+markers",
            name=style.label,
            line={"color": style.colour, "width": 2, "dash": style.dash},
            marker={"size": 8, "symbol": style.symbol},
            meta={"arm": style.arm},
            hovertemplate=style.hover("%{y:.4f} at lr %{x:.3g}"),
        )
    note = (
        "Tuning runs only; at each rate the best of the other settings. A flat curve is easy to "
        "tune. A diverged run counts as the loss before training."
    )
    return Figure("sensitivity", "Sensitivity to the learning rate", note, plot)


# ------------------------------------------------------------------------------------ step times


def _step_times(study: Study, look: Look) -> Figure | None:
    """Box plot."""
    times = {arm: np.concatenate(runs) for arm, runs in series.step_times(study).items()}
    if not times:
        return None
    plot = drawing.new(xaxis={"title": "milliseconds per update"})
    for arm, x in reversed(times.items()):
        _box(plot, look[arm], x)
    drawing.one_line_per_arm(plot, len(times))
    least = min(float(np.quantile(x, 0.01)) for x in times.values())
    most = max(float(np.quantile(x, 0.99)) for x in times.values())
    room = 0.08 * (most - least) or 0.01 * most
    plot.update_layout(xaxis={"range": [least - room, most + room]})
    note = (
        "Box: quartiles. Whiskers: 1 % and 99 %. Dots: the slowest updates (double-click shows "
        "all). All seeds, without the first update."
    )
    return Figure("step_times", "Time of an update", note, plot)


def _box(plot: Any, style: Style, x: Floats) -> None:
    """Quartiles and whiskers of an arm, and its slowest updates as dots."""
    low, q1, q2, q3, high = np.quantile(x, [0.01, 0.25, 0.5, 0.75, 0.99])
    plot.add_box(
        q1=[q1],
        median=[q2],
        q3=[q3],
        lowerfence=[low],
        upperfence=[high],
        y=[style.label],
        orientation="h",
        line={"color": style.colour, "width": 1.5},
        meta={"arm": style.arm},
        fillcolor=style.faint,
        name=style.label,
    )
    far = np.sort(x[x > high])[-FAR_POINTS:]
    drawing.dots(plot, style, far, size=4, opacity=0.6, hover="%{x:.2f} ms")


def _bootstrap_means(study: Study, look: Look) -> Figure | None:
    """Distribution of the mean step time under a block bootstrap."""
    times = series.step_times(study)
    if not times:
        return None
    axis = {"title": "mean milliseconds per update"}
    plot = drawing.new(xaxis=axis, yaxis={"title": "density"})
    for number, (arm, runs) in enumerate(times.items()):
        rng = np.random.default_rng([0, number])
        means = np.mean([block_means(x, rng) for x in runs], axis=0)
        drawing.density(plot, look[arm], means, "%{x:.3f} ms")
    note = (
        "Where the mean would lie if the runs were repeated: moving blocks of neighbouring updates "
        "are resampled, since neighbours resemble each other."
    )
    return Figure("bootstrap_means", "Bootstrap distribution of mean step times", note, plot)


def _step_differences(study: Study, look: Look) -> Figure | None:
    """Histogram of an arm's step times minus the baseline's, at the same update and seeds."""
    axis = {"title": "ms, arm minus baseline"}
    plot = drawing.new(xaxis=axis, yaxis={"title": "density"})
    for arm in study.arms:
        base = study.baseline_of(arm)
        if base is None or base == arm:
            continue
        gaps = series.step_gaps(study, arm, base)
        if len(gaps) > 1:
            drawing.density(plot, look[arm], gaps, "%{x:.2f} ms")
    if not plot.data:
        return None
    drawing.zero_line(plot, 0)
    note = (
        "At the same update of the same seeds. The outermost bins hold what lies beyond them, "
        "0.5 % on each side."
    )
    return Figure("step_differences", "Differences of step times", note, plot)
