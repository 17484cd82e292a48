"""Figures of the times of updates: box plot, bootstrap of the means, paired differences.

They are those of the 2024 study that timed SGD against Adam. None decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from report import drawing, series
from report.drawing import Figure, Style
from report.statistics import Floats, block_means
from report.study import Study

FAR_POINTS = 15  # slowest updates shown beside a box

Look = Mapping[str, Style]  # by arm


def step_times(study: Study, look: Look) -> Figure | None:
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
    medians = {arm: f"{np.median(x):.2f}" for arm, x in times.items()}
    said = drawing.in_words("Median time of an update, ms", medians)
    return Figure("step_times", "Time of an update", note, said, plot, folded=True)


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


def bootstrap_means(study: Study, look: Look) -> Figure | None:
    """Distribution of the mean step time under a block bootstrap."""
    times = series.step_times(study)
    if not times:
        return None
    axis = {"title": "mean milliseconds per update"}
    plot = drawing.new(xaxis=axis, yaxis={"title": "density"})
    centres = {}
    for number, (arm, runs) in enumerate(times.items()):
        rng = np.random.default_rng([0, number])
        means = np.mean([block_means(x, rng) for x in runs], axis=0)
        drawing.density(plot, look[arm], means, "%{x:.3f} ms")
        centres[arm] = f"{means.mean():.2f}"
    note = (
        "Where the mean would lie if the runs were repeated: moving blocks of neighbouring updates "
        "are resampled, since neighbours resemble each other."
    )
    said = drawing.in_words("Mean time of an update, ms", centres)
    title = "Bootstrap distribution of mean step times"
    return Figure("bootstrap_means", title, note, said, plot, folded=True)


def step_differences(study: Study, look: Look) -> Figure | None:
    """Histogram of an arm's step times minus the baseline's, at the same update and seeds."""
    axis = {"title": "ms, arm minus baseline"}
    plot = drawing.new(xaxis=axis, yaxis={"title": "density"})
    centres = {}
    for arm in study.arms:
        base = study.baseline_of(arm)
        if base is None or base == arm:
            continue
        gaps = series.step_gaps(study, arm, base)
        if len(gaps) > 1:
            drawing.density(plot, look[arm], gaps, "%{x:.2f} ms")
            centres[arm] = f"{np.median(gaps):+.2f}"
    if not plot.data:
        return None
    drawing.zero_line(plot, 0)
    note = (
        "At the same update of the same seeds. The outermost bins hold what lies beyond them, "
        "0.5 % on each side."
    )
    what = "Median difference of the times of updates to the baseline, ms"
    said = drawing.in_words(what, centres)
    return Figure("step_differences", "Differences of step times", note, said, plot, folded=True)
