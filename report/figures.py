"""The figures of a report, as plotly objects: one function per figure.

Every trace says in its `meta` which arm it belongs to, so that a page can hide and show arms; a
figure over steps says in its layout's `meta` what the steps are in tokens and seconds. Curves are
cut into at most MOST_POINTS pieces, each with its mean, minimum and maximum, so that no spike is
lost to the eye. Colours fit light and dark paper and the common colour blindnesses (Okabe & Ito
2008); beyond six arms lines are dashed too.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from report.runs import Run, Study, plain
from report.statistics import Floats, block_means
from report.verdict import AXES, Judgement, baseline_of, cost_at

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE_COLOUR = "#7d8590"
DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
MOST_POINTS, LEAST_POINTS = 500, 60  # per curve
NOISY_POINTS = 200  # of a curve with a band: the line is a mean that the eye can follow
ALL_POINTS = 6_000  # per figure: many arms get fewer each
BINS = 60
FAR_POINTS = 15  # slowest updates shown beside a box


class Figure(NamedTuple):
    """id: for links. note: a sentence that says how to read it. plot: a plotly Figure."""

    id: str
    title: str
    note: str
    plot: Any


class Style(NamedTuple):
    """How an arm is drawn, in every figure the same."""

    colour: str
    dash: str
    symbol: str
    label: str  # its name, safe as plotly's text


def styles(study: Study) -> dict[str, Style]:
    """A style for each arm; the baseline is grey."""
    found, number = {}, 0
    for arm in study.arms:
        if baseline_of(study, arm) == arm:
            found[arm] = Style(BASELINE_COLOUR, "solid", "circle", html.escape(arm))
            continue
        cycle, colour = divmod(number, len(COLOURS))
        found[arm] = Style(
            COLOURS[colour], DASHES[cycle % len(DASHES)], SYMBOLS[number % 6], html.escape(arm)
        )
        number += 1
    return found


def figures(study: Study, judgement: Judgement) -> list[Figure]:
    """All figures for which there is something to draw."""
    look = styles(study)
    builders: Sequence[Callable[[Study, Judgement, dict[str, Style]], Figure | None]] = (
        differences, final_losses, val_loss, train_loss, speedups, learning_rate, gradient_norm,
        cumulative_time, stability, spikes, sensitivity, step_times, bootstrap_means,
        step_differences,
    )  # fmt: skip
    drawn = (build(study, judgement, look) for build in builders)
    return [figure for figure in drawn if figure is not None]


# ------------------------------------------------------------------------------- verdict figures


def differences(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Each arm's difference to the baseline, with its interval and the pairs."""
    plot = new(xaxis={"title": f"difference in {words(judgement.metric)}: left is better"})
    compared = [r for r in judgement.rows if r.comparison and r.comparison.difference is not None]
    if not compared:
        return None
    for r in reversed(compared):
        c, style = r.comparison, look[r.arm]
        if c is None or c.difference is None:
            continue
        pairs = list(c.differences.items())
        plot.add_scatter(
            x=[gap for _, gap in pairs], y=[style.label] * len(pairs), mode="markers",
            marker={"color": style.colour, "size": 6, "opacity": 0.45},
            hovertemplate="seed %{customdata}: %{x:+.4f}<extra>" + style.label + "</extra>",
            customdata=[seed for (seed, _), _ in pairs], meta={"arm": r.arm},
        )  # fmt: skip
        plot.add_scatter(
            x=[c.difference], y=[style.label], mode="markers", meta={"arm": r.arm},
            marker={"color": style.colour, "size": 12, "symbol": "diamond"},
            error_x=reach(c.difference, c.low, c.high, style),
            hovertemplate=f"{c.words}: %{{x:+.4f}}<br>{c.method}, p (Holm) = {number(c.p_holm)}"
            f"<extra>{style.label}</extra>",
        )  # fmt: skip
    plot.add_vline(x=0, line={"color": BASELINE_COLOUR, "width": 1.5})
    lines(plot, len(compared))
    note = (
        "Diamonds: mean difference to the baseline with its 95 % t interval. Dots: the pairs, one "
        "per seed. An interval that holds zero is no evidence."
    )
    return Figure("differences", "Difference to the baseline", note, plot)


def final_losses(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Every seed's loss, with mean and interval."""
    plot = new(xaxis={"title": words(judgement.metric)})
    shown = [r for r in judgement.rows if any(map(math.isfinite, r.values.values()))]
    for r in reversed(shown):
        style = look[r.arm]
        ends = [(seed, x) for (seed, _), x in r.values.items() if math.isfinite(x)]
        plot.add_scatter(
            x=[x for _, x in ends], y=[style.label] * len(ends), mode="markers",
            marker={"color": style.colour, "size": 7, "opacity": 0.5}, meta={"arm": r.arm},
            customdata=[seed for seed, _ in ends],
            hovertemplate="seed %{customdata}: %{x:.4f}<extra>" + style.label + "</extra>",
        )  # fmt: skip
        if r.mean is not None and math.isfinite(r.mean):
            plot.add_scatter(
                x=[r.mean], y=[style.label], mode="markers", meta={"arm": r.arm},
                marker={"color": style.colour, "size": 11, "symbol": "line-ns-open",
                        "line": {"width": 3, "color": style.colour}},
                error_x=reach(r.mean, r.low, r.high, style),
                hovertemplate=f"mean %{{x:.4f}}, n = {r.n}<extra>{style.label}</extra>",
            )  # fmt: skip
    if not shown:
        return None
    lines(plot, len(shown))
    note = (
        "Dots: runs. Bars: mean with its 95 % t interval, which counts the seeds' common luck too."
    )
    return Figure("finals", f"{words(judgement.metric).capitalize()} of every seed", note, plot)


def speedups(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Four axes for each arm."""
    plot = new(xaxis={"title": "speed-up to the baseline's final loss"})
    drawn = False
    for r in judgement.rows:
        found = [(axis, r.speedups[axis]) for axis in AXES if axis in r.speedups]
        found = [(axis, s) for axis, s in found if s.ratio > 0 and math.isfinite(s.ratio)]
        if not found:
            continue
        style, drawn = look[r.arm], True
        plot.add_scatter(
            x=[s.ratio for _, s in found], y=[axis_words(axis) for axis, _ in found],
            mode="markers", meta={"arm": r.arm}, name=style.label,
            marker={"color": style.colour, "size": 11, "symbol": style.symbol},
            error_x={"type": "data", "symmetric": False, "color": style.colour, "thickness": 1.5,
                     "array": [0 if s.high is None else s.high - s.ratio for _, s in found],
                     "arrayminus": [0 if s.low is None else s.ratio - s.low for _, s in found]},
            hovertemplate="%{x:.2f} x in %{y}<extra>" + style.label + "</extra>",
        )  # fmt: skip
    if not drawn:
        return None
    plot.add_vline(x=1, line={"color": BASELINE_COLOUR, "width": 1.5})
    plot.update_layout(
        height=90 + 30 * len(AXES) + 12 * len(judgement.rows), scattermode="group",
        scattergap=0.3, yaxis={"range": [-0.6, len(AXES) - 0.4]},
    )  # fmt: skip
    note = (
        "What the baseline spends on its final loss over what the arm spends on the same loss: "
        "above 1 is faster. Arms that never reach it are not drawn."
    )
    return Figure("speedups", "Speed-up on four axes", note, plot)


# ---------------------------------------------------------------------------------------- curves


def val_loss(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Validation loss, mean and extremes over seeds."""
    plot, axes = new(yaxis={"title": "val loss, nats per token"}), {}
    tops, bottoms = [], []
    for arm, runs in shown_runs(study).items():
        points = evaluations(runs)
        if points is None:
            continue
        steps, mean, low, high, axes[arm] = points
        band(plot, arm, look[arm], steps, mean, low, high, markers=len(steps) <= 40)
        tops.append(mean[min(len(mean) - 1, max(1, len(mean) // 10))])
        bottoms.append(low.min())
    if not tops:
        return None
    note = "Line: mean over seeds. Band: lowest and highest seed. Double-click shows everything."
    if judgement.target is not None:
        plot.add_hline(
            y=judgement.target, line={"color": BASELINE_COLOUR, "width": 1, "dash": "dot"}
        )
        note += " Dotted: the target."
    over_steps(plot, axes, tops, bottoms)
    return Figure("val_loss", "Validation loss", note, plot)


def train_loss(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Training loss."""
    note = (
        "Line: mean. Band: lowest and highest value of any seed, so that spikes show. Double-click "
        "shows everything."
    )
    title = "training loss, nats per token"
    return curve(study, look, "train/loss", "train_loss", "Training loss", title, note, cut=True)


def learning_rate(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Recorded learning rates."""
    note = "As recorded at each update, mean over seeds."
    name, title = "train/lr", "Learning rate"
    return curve(study, look, name, "lr", title, "learning rate", note, bands=False)


def gradient_norm(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Before clipping."""
    note = "L2 norm before clipping. Band: lowest and highest value of any seed."
    name, title = "train/grad_norm", "Gradient norm"
    return curve(study, look, name, "grad_norm", title, "gradient norm", note, log=True)


def cumulative_time(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """The training clock."""
    note = "Clock of the training loop: without evaluation, checkpoints, compilation and logging."
    name, title = "time/train_seconds", "Cumulative time"
    return curve(study, look, name, "time", title, "seconds of training", note)


def stability(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Legacy score."""
    note = "1 / (1 + std of all losses so far). It punishes learning: a flat run scores 1."
    name, title = "train/stability_score", "Stability score"
    return curve(study, look, name, "stability", title, "stability score", note)


def spikes(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Spike score so far."""
    note = "Percent of the updates so far whose loss or gradient norm is an outlier."
    name, title = "train/spike_score", "Spike score"
    return curve(study, look, name, "spikes", title, "spike score, %", note)


def curve(
    study: Study,
    look: dict[str, Style],
    column: str,
    id: str,
    title: str,
    axis: str,
    note: str,
    *,
    cut: bool = False,
    log: bool = False,
    bands: bool = True,
) -> Figure | None:
    """One column of the updates over steps, for all arms."""
    plot, axes = new(yaxis={"title": axis, "type": "log" if log else "linear"}), {}
    tops, bottoms = [], []
    arms, most = shown_runs(study), NOISY_POINTS if bands else MOST_POINTS
    for arm, runs in arms.items():
        points = buckets(runs, column, min(pieces(len(arms)), most))
        if points is None:
            continue
        steps, mean, low, high, axes[arm] = points
        if log:
            low = np.maximum(low, np.min(mean) / 100)
        band(plot, arm, look[arm], steps, mean, low if bands else None, high)
        tops.append(mean[len(mean) // 20])
        bottoms.append(low.min())
    if not axes:
        return None
    over_steps(plot, axes, tops if cut else [], bottoms)
    return Figure(id, title, note, plot)


def shown_runs(study: Study) -> dict[str, list[Run]]:
    """Reporting runs with numbers, by arm; diverged ones too, up to where they went."""
    found = {arm: [run for run in study.of(arm) if len(run.train["step"])] for arm in study.arms}
    return {arm: runs for arm, runs in found.items() if runs}


def pieces(arms: int) -> int:
    """Pieces that each of `arms` curves is cut into."""
    return max(LEAST_POINTS, min(MOST_POINTS, ALL_POINTS // max(1, arms)))


Points = tuple[Floats, Floats, Floats, Floats, dict[str, list[float]]]


def buckets(runs: Sequence[Run], column: str, most: int) -> Points | None:
    """(step, mean, minimum, maximum, other axes) of equal pieces of the run, over all its seeds."""
    have = [run for run in runs if column in run.train]
    if not have:
        return None
    steps = np.concatenate([run.train["step"] for run in have])
    values = np.concatenate([run.train[column] for run in have])
    tokens, seconds = (
        np.concatenate([run.train.get(n, np.full(len(run.train["step"]), np.nan)) for run in have])
        for n in ("tokens", "time/train_seconds")
    )
    finite = np.isfinite(values)
    if not finite.any():
        return None
    steps, values = steps[finite], values[finite]
    count = min(most, int(steps.max()) + 1)
    where = (steps * count // (steps.max() + 1)).astype(np.intp)
    size = np.bincount(where, minlength=count)
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, where, values)
    np.maximum.at(high, where, values)
    some = size > 0

    def mean(x: Floats) -> Floats:
        return np.bincount(where, weights=x, minlength=count)[some] / size[some]

    axes = {"tokens": short(mean(tokens[finite])), "seconds": short(mean(seconds[finite]))}
    return mean(steps), mean(values), low[some], high[some], axes


def evaluations(runs: Sequence[Run]) -> Points | None:
    """The same of the evaluations, each step by itself."""
    pairs = [
        (step, loss, seconds, tokens)
        for run in runs
        for step, loss, seconds, tokens in zip(
            run.val.get("step", ()), run.val.get("val/loss", ()),
            at_steps(run, "seconds"), at_steps(run, "tokens"), strict=True,
        )
        if math.isfinite(loss)
    ]  # fmt: skip
    if not pairs:
        return None
    table = np.array(pairs)
    steps, where = np.unique(table[:, 0], return_inverse=True)
    size = np.bincount(where)
    low, high = np.full(len(steps), np.inf), np.full(len(steps), -np.inf)
    np.minimum.at(low, where, table[:, 1])
    np.maximum.at(high, where, table[:, 1])
    mean, seconds, tokens = (np.bincount(where, weights=table[:, i]) / size for i in (1, 2, 3))
    return steps, mean, low, high, {"tokens": short(tokens), "seconds": short(seconds)}


def at_steps(run: Run, axis: str) -> Floats:
    """cost_at, NaN where it is not recorded."""
    steps = run.val.get("step", np.array([]))
    found = cost_at(run, axis, steps)
    return np.full(len(steps), np.nan) if found is None else found


def short(x: Floats) -> list[float]:
    """Six digits: more than a screen has; what is not known is left at zero."""
    return [float(f"{v:.6g}") if math.isfinite(v) else 0.0 for v in x]


def band(
    plot: Any,
    arm: str,
    style: Style,
    x: Floats,
    mean: Floats,
    low: Floats | None,
    high: Floats,
    markers: bool = False,
) -> None:
    """A line, and behind it a band from low to high."""
    x = x.astype(np.float32)
    hidden = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "meta": {"arm": arm}}
    if low is not None and np.any(high > low):
        plot.add_scatter(x=x, y=low.astype(np.float32), **hidden)
        fill = {"fill": "tonexty", "fillcolor": faint(style.colour)}
        plot.add_scatter(x=x, y=high.astype(np.float32), **hidden, **fill)
    plot.add_scatter(
        x=x, y=mean.astype(np.float32), mode="lines+markers" if markers else "lines",
        name=style.label, line={"color": style.colour, "width": 2, "dash": style.dash},
        marker={"size": 5, "symbol": style.symbol}, meta={"arm": arm},
        hovertemplate="%{y:.5g} at %{x:.6~g}<extra>" + style.label + "</extra>",
    )  # fmt: skip


def over_steps(
    plot: Any,
    axes: Mapping[str, Any],
    tops: Sequence[float],
    bottoms: Sequence[float],
) -> None:
    """Steps below, the other axes in the layout's meta; y cut to what comes after the start."""
    plot.update_layout(xaxis={"title": "steps"}, meta={"axes": axes})
    if tops and max(tops) > min(bottoms):
        room = 0.04 * (max(tops) - min(bottoms))
        plot.update_layout(yaxis={"range": [min(bottoms) - room, max(tops) + room]})


def sensitivity(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Loss over learning rates, from the tuning runs."""
    plot = new(xaxis={"title": "learning rate", "type": "log"}, yaxis={"title": "final val loss"})
    by_name = {plain(arm): style for arm, style in reversed(look.items())} | look
    whole = {plain(arm): arm for arm in reversed(study.arms)}
    for arm, s in judgement.sensitivity.items():
        style = by_name[arm]
        y = [min(loss, s.initial) for loss in s.losses.values()]
        plot.add_scatter(
            x=list(s.losses), y=y, mode="lines+markers", name=style.label,
            line={"color": style.colour, "width": 2, "dash": style.dash},
            marker={"size": 8, "symbol": style.symbol}, meta={"arm": whole.get(arm, arm)},
            hovertemplate="%{y:.4f} at lr %{x:.3g}<extra>" + style.label + "</extra>",
        )  # fmt: skip
    note = (
        "Tuning runs only: the best of the other settings at each rate. Flat is easy to tune. "
        "Diverged runs count as the loss before training."
    )
    title = "Sensitivity to the learning rate"
    return Figure("sensitivity", title, note, plot) if judgement.sensitivity else None


# ------------------------------------------------------------------------------------ step times


def step_series(study: Study) -> dict[str, list[Floats]]:
    """Milliseconds of the updates by arm and run, without the first, which warms up."""
    found = {}
    for arm, runs in shown_runs(study).items():
        series = [run.train["time/step_ms"][1:] for run in runs if "time/step_ms" in run.train]
        series = [x[np.isfinite(x)] for x in series]
        if series := [x for x in series if len(x) > 1]:
            found[arm] = series
    return found


def step_times(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Box plot."""
    plot = new(xaxis={"title": "milliseconds per update"})
    series = step_series(study)
    for arm, runs in reversed(series.items()):
        style, x = look[arm], np.concatenate(runs)
        low, q1, q2, q3, high = np.quantile(x, [0.01, 0.25, 0.5, 0.75, 0.99])
        plot.add_box(
            q1=[q1], median=[q2], q3=[q3], lowerfence=[low], upperfence=[high], y=[style.label],
            orientation="h", line={"color": style.colour, "width": 1.5}, meta={"arm": arm},
            fillcolor=faint(style.colour), name=style.label,
        )  # fmt: skip
        far = np.sort(x[x > high])[-FAR_POINTS:]
        plot.add_scatter(
            x=far, y=[style.label] * len(far), mode="markers", meta={"arm": arm},
            marker={"color": style.colour, "size": 4, "opacity": 0.6},
            hovertemplate="%{x:.2f} ms<extra>" + style.label + "</extra>",
        )  # fmt: skip
    if not series:
        return None
    most = max(float(np.quantile(np.concatenate(runs), 0.99)) for runs in series.values())
    least = min(float(np.quantile(np.concatenate(runs), 0.01)) for runs in series.values())
    room = 0.08 * (most - least) or 0.01 * most
    lines(plot, len(series))
    plot.update_layout(xaxis={"range": [least - room, most + room]})
    note = (
        "Box: quartiles. Whiskers: 1 % and 99 %. Dots: the slowest updates (double-click shows "
        "all). All seeds, without the first update."
    )
    return Figure("step_times", "Time of an update", note, plot)


def bootstrap_means(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Distribution of the mean step time under a block bootstrap."""
    plot = new(xaxis={"title": "mean milliseconds per update"}, yaxis={"title": "density"})
    series = step_series(study)
    for number_, (arm, runs) in enumerate(series.items()):
        rng = np.random.default_rng([0, number_])
        means = np.mean([block_means(x, rng) for x in runs], axis=0)
        density(plot, arm, look[arm], means, "%{x:.3f} ms")
    note = (
        "Where the mean would lie if the runs were repeated: moving blocks of neighbouring updates "
        "are resampled, since neighbours resemble each other."
    )
    title = "Bootstrap distribution of mean step times"
    return Figure("bootstrap_means", title, note, plot) if series else None


def step_differences(study: Study, judgement: Judgement, look: dict[str, Style]) -> Figure | None:
    """Histogram of an arm's step times minus the baseline's, at the same update and seeds."""
    plot, drawn = new(xaxis={"title": "ms, arm minus baseline"}, yaxis={"title": "density"}), False
    for arm in study.arms:
        base = baseline_of(study, arm)
        if base is None or base == arm:
            continue
        others = {run.pair: run for run in study.of(base)}
        gaps = [step_gaps(run, others[run.pair]) for run in study.of(arm) if run.pair in others]
        x = np.concatenate(gaps) if gaps else np.array([])
        if len(x) > 1:
            density(plot, arm, look[arm], x, "%{x:.2f} ms")
            drawn = True
    plot.add_vline(x=0, line={"color": BASELINE_COLOUR, "width": 1.5})
    note = (
        "The same update of the same seeds. The outermost bins hold what lies beyond them, 0.5 % "
        "on each side."
    )
    title = "Differences of step times"
    return Figure("step_differences", title, note, plot) if drawn else None


def step_gaps(run: Run, other: Run) -> Floats:
    """Differences in milliseconds at the updates that both runs have, without the first."""
    name = "time/step_ms"
    if name not in run.train or name not in other.train:
        return np.array([])
    _, a, b = np.intersect1d(run.train["step"], other.train["step"], return_indices=True)
    gaps = (run.train[name][a] - other.train[name][b])[1:]
    return np.asarray(gaps[np.isfinite(gaps)])


def density(plot: Any, arm: str, style: Style, x: Floats, hover: str) -> None:
    """A histogram as an outline; the outermost bins hold what lies beyond them."""
    low, high = np.quantile(x, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(x, low, high), bins=BINS, range=(low, high), density=True)
    plot.add_scatter(
        x=edges.astype(np.float32), y=np.append(counts, 0).astype(np.float32), mode="lines",
        line={"color": style.colour, "width": 1.5, "shape": "hv", "dash": style.dash},
        fill="tozeroy", fillcolor=faint(style.colour), name=style.label, meta={"arm": arm},
        hovertemplate=hover + "<extra>" + style.label + "</extra>",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------- parts


def new(**layout: Any) -> Any:
    """An empty figure without colours of paper or ink: the page gives them."""
    import plotly.graph_objects as go

    plot = go.Figure()
    plot.update_layout(template=go.layout.Template(), showlegend=False, height=360, **layout)
    plot.update_layout(yaxis={"automargin": True})
    plot.update_layout(margin={"l": 56, "r": 16, "t": 12, "b": 48}, hovermode="closest")
    return plot


def lines(plot: Any, rows: int) -> None:
    """Height and room of a figure with one line per arm."""
    plot.update_layout(height=90 + 34 * max(2, rows), yaxis={"range": [-0.6, rows - 0.4]})


def faint(colour: str) -> str:
    """The colour of a band."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def reach(centre: float, low: float | None, high: float | None, style: Style) -> dict[str, Any]:
    """Error bars from low to high."""
    if low is None or high is None:
        return {"type": "data", "array": [0], "visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - centre],
        "arrayminus": [centre - low],
        "color": style.colour,
        "thickness": 2,
    }


def words(metric: str) -> str:
    """A metric's name for reading."""
    return metric.replace("_", " ")


def axis_words(axis: str) -> str:
    """An axis of speed-ups for reading."""
    return "FLOPs" if axis == "flops" else axis


def number(x: float | None) -> str:
    """Three digits, or a dash."""
    return "–" if x is None else f"{x:.3g}"
