"""How a figure's parts are drawn in plotly: arms always alike, paper and ink left to the page.

Every trace says in its `meta` which arm it belongs to, so that the page can hide and show arms.
Colours fit light and dark paper and the common colour blindnesses (Okabe & Ito 2008); beyond six
arms lines are dashed too.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from report.series import Points
from report.statistics import Floats
from report.study import Study

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE_COLOUR = "#7d8590"
DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
BINS = 60


class Style(NamedTuple):
    """How an arm is drawn, in every figure the same."""

    arm: str
    colour: str
    dash: str
    symbol: str

    @property
    def label(self) -> str:
        """The arm's name as plotly's text, which knows some HTML."""
        return html.escape(self.arm)

    @property
    def faint(self) -> str:
        """The colour of a band."""
        red, green, blue = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red},{green},{blue},0.11)"

    def hover(self, text: str) -> str:
        """Text beside the pointer, with the arm's name."""
        return f"{text}<extra>{self.label}</extra>"


def styles(study: Study) -> dict[str, Style]:
    """A style for each arm; the baseline is grey."""
    found, number = {}, 0
    for arm in study.arms:
        if study.baseline_of(arm) == arm:
            found[arm] = Style(arm, BASELINE_COLOUR, "solid", "circle")
            continue
        cycle, colour = divmod(number, len(COLOURS))
        dash, symbol = DASHES[cycle % len(DASHES)], SYMBOLS[number % len(SYMBOLS)]
        found[arm] = Style(arm, COLOURS[colour], dash, symbol)
        number += 1
    return found


def new(**layout: Any) -> Any:
    """An empty plotly figure without colours of paper or ink: the page gives them."""
    import plotly.graph_objects as go

    plot = go.Figure()
    plot.update_layout(template=go.layout.Template(), showlegend=False, height=360, **layout)
    plot.update_layout(yaxis={"automargin": True})
    plot.update_layout(margin={"l": 56, "r": 16, "t": 12, "b": 48}, hovermode="closest")
    return plot


def one_line_per_arm(plot: Any, arms: int) -> None:
    """Height and room for `arms` lines below each other."""
    plot.update_layout(height=90 + 34 * max(2, arms), yaxis={"range": [-0.6, arms - 0.4]})


def zero_line(plot: Any, x: float) -> None:
    """The vertical line of "no difference"."""
    plot.add_vline(x=x, line={"color": BASELINE_COLOUR, "width": 1.5})


def dots(
    plot: Any,
    style: Style,
    x: ArrayLike,
    *,
    size: int,
    opacity: float,
    hover: str,
    seeds: Any = None,
) -> None:
    """Values on an arm's line. seeds: of each value, for the hover text."""
    plot.add_scatter(
        x=x,
        y=[style.label] * len(np.atleast_1d(x)),
        mode="markers",
        marker={"color": style.colour, "size": size, "opacity": opacity},
        hovertemplate=style.hover(hover),
        customdata=seeds,
        meta={"arm": style.arm},
    )


def centre(
    plot: Any,
    style: Style,
    x: float,
    low: float | None,
    high: float | None,
    marker: dict[str, Any],
    hover: str,
) -> None:
    """A mean on an arm's line, with its interval."""
    plot.add_scatter(
        x=[x],
        y=[style.label],
        mode="markers",
        meta={"arm": style.arm},
        marker={"color": style.colour, **marker},
        error_x=_reach(x, low, high, style),
        hovertemplate=style.hover(hover),
    )


def _reach(x: float, low: float | None, high: float | None, style: Style) -> dict[str, Any]:
    """Error bars from low to high."""
    if low is None or high is None:
        return {"type": "data", "array": [0], "visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - x],
        "arrayminus": [x - low],
        "color": style.colour,
        "thickness": 2,
    }


def curve(
    plot: Any, style: Style, points: Points, low: Floats | None, marked: bool = False
) -> None:
    """A line, and behind it a band from `low` (None: no band) to the points' highs."""
    x = points.steps.astype(np.float32)
    if low is not None and np.any(points.high > low):
        edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
        edge["meta"] = {"arm": style.arm}
        plot.add_scatter(x=x, y=low.astype(np.float32), **edge)
        fill = {"fill": "tonexty", "fillcolor": style.faint}
        plot.add_scatter(x=x, y=points.high.astype(np.float32), **edge, **fill)
    plot.add_scatter(
        x=x,
        y=points.mean.astype(np.float32),
        mode="lines+markers" if marked else "lines",
        name=style.label,
        line={"color": style.colour, "width": 2, "dash": style.dash},
        marker={"size": 5, "symbol": style.symbol},
        meta={"arm": style.arm},
        hovertemplate=style.hover("%{y:.5g} at %{x:.6~g}"),
    )


def over_steps(
    plot: Any, axes: Mapping[str, Any], tops: Sequence[float], bottoms: Sequence[float]
) -> None:
    """Steps below; y cut to between the lowest of `bottoms` and the highest of `tops`, if any.

    axes: of each arm, its steps in tokens and seconds, for the page's buttons.
    """
    plot.update_layout(xaxis={"title": "steps"}, meta={"axes": axes})
    if tops and max(tops) > min(bottoms):
        room = 0.04 * (max(tops) - min(bottoms))
        plot.update_layout(yaxis={"range": [min(bottoms) - room, max(tops) + room]})


def density(plot: Any, style: Style, x: Floats, hover: str) -> None:
    """A histogram as an outline; the outermost bins hold what lies beyond them."""
    low, high = np.quantile(x, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(x, low, high), bins=BINS, range=(low, high), density=True)
    plot.add_scatter(
        x=edges.astype(np.float32),
        y=np.append(counts, 0).astype(np.float32),
        mode="lines",
        line={"color": style.colour, "width": 1.5, "shape": "hv", "dash": style.dash},
        fill="tozeroy",
        fillcolor=style.faint,
        name=style.label,
        meta={"arm": style.arm},
        hovertemplate=style.hover(hover),
    )
