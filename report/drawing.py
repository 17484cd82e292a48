"""How a figure's parts are drawn in plotly: arms always alike, paper and ink left to the page.

Every trace says in its `meta` which arm it belongs to, so that the page can hide and show arms.
Colours keep a contrast of 3:1 with light and with dark paper, which leaves too few of them for the
common colour blindnesses: each arm has its own dashes and symbols too, and labels at its ends.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from report.series import Points
from report.statistics import Floats
from report.study import Study

COLOURS = ("#0a78c2", "#d2600a", "#0f9368", "#d0369a", "#8b5cf0", "#8c6239")
BASELINE_COLOUR = "#7d8590"
DASHES = ("solid", "8px,3px", "2px,3px", "10px,3px,2px,3px")  # neighbours differ in both
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
BINS = 60
HEIGHT, TOP, BOTTOM, RIGHT = 360, 12, 48, 16  # px, of a figure and its margins
LABEL, GAP, CHARACTER = 11, 13, 6.4  # px: font, from label to label, mean width of a letter
LONGEST = 20  # characters of a label
PANELS = 2  # beside each other
MOST_LABELS = 20  # in the height of a figure


class Style(NamedTuple):
    """How an arm is drawn, in every figure the same. dash: as plotly and SVG both read it."""

    arm: str
    colour: str
    dash: str
    symbol: str
    width: float = 2.0  # px

    @property
    def label(self) -> str:
        """The arm's name as plotly's text, which knows some HTML."""
        return html.escape(self.arm)

    @property
    def faint(self) -> str:
        """The colour of a band."""
        red, green, blue = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red},{green},{blue},0.11)"

    @property
    def line(self) -> dict[str, Any]:
        """A plotly line."""
        return {"color": self.colour, "width": self.width, "dash": self.dash}

    def hover(self, text: str) -> str:
        """Text beside the pointer, with the arm's name."""
        return f"{text}<extra>{self.label}</extra>"


class Figure(NamedTuple):
    """id: for links. note: how to read it. said: what it shows, for those who do not see it.

    plot: a plotly Figure. folded: it is closed at first, as it decides nothing or is flat.
    """

    id: str
    title: str
    note: str
    said: str
    plot: Any
    folded: bool = False


def in_words(what: str, values: Mapping[str, str]) -> str:
    """A figure in a sentence: what is drawn, and each arm's number."""
    return f"{what}: {', '.join(f'{arm} {value}' for arm, value in values.items())}."


def styles(study: Study) -> dict[str, Style]:
    """A style for each arm; the baseline is wide and grey."""
    found, number = {}, 0
    for arm in study.arms:
        if study.baseline_of(arm) == arm:
            found[arm] = Style(arm, BASELINE_COLOUR, "solid", "circle", 3.0)
            continue
        colour, symbol = COLOURS[number % len(COLOURS)], SYMBOLS[number % len(SYMBOLS)]
        cycle = number + number // 12  # colours and dashes meet again after 24 arms, not after 12
        found[arm] = Style(arm, colour, DASHES[cycle % len(DASHES)], symbol)
        number += 1
    return found


def new(**layout: Any) -> Any:
    """An empty plotly figure without colours of paper or ink: the page gives them."""
    import plotly.graph_objects as go

    plot = go.Figure()
    plot.update_layout(template=go.layout.Template(), showlegend=False, height=HEIGHT, **layout)
    plot.update_layout(yaxis={"automargin": True}, hovermode="closest")
    plot.update_layout(margin={"l": 56, "r": RIGHT, "t": TOP, "b": BOTTOM})
    return plot


def panels(count: int, height: int) -> Any:
    """An empty figure of `count` panels, up to PANELS beside each other; height: of a row, px."""
    from plotly.subplots import make_subplots

    rows, columns = place(count - 1)["row"], min(PANELS, count)
    room = {"horizontal_spacing": 0.24, "vertical_spacing": 85 / (rows * height)}
    plot = make_subplots(rows, columns, **room)
    plot.update_layout(new().layout)
    plot.update_layout(height=rows * height + 40)
    return plot


def place(number: int) -> dict[str, int]:
    """Row and column of panel `number`, from 0."""
    return {"row": 1 + number // PANELS, "col": 1 + number % PANELS}


def heat(
    plot: Any,
    style: Style,
    number: int,
    *,
    titles: tuple[str, str],
    x: Sequence[Any],
    y: Sequence[Any],
    z: Floats,
    hover: str,
    text: Sequence[Sequence[str]] | None = None,
) -> None:
    """An arm's heat map in panel `number`. titles: of its axes. text: of each cell."""
    cells = {"text": text, "texttemplate": "%{text}"} if text else {}
    plot.add_heatmap(
        x=x,
        y=y,
        z=[[None if math.isnan(v) else v for v in row] for row in z.tolist()],
        coloraxis="coloraxis",
        meta={"arm": style.arm},
        hoverongaps=False,
        hovertemplate=style.hover(hover),
        **place(number),
        **cells,
    )
    kind = "category" if text else "-"  # plotly takes "0.1" for a number
    plot.update_xaxes(title_text=titles[0], type=kind, **place(number))
    plot.update_yaxes(title_text=titles[1], type=kind, **place(number))


def one_line_per_arm(plot: Any, arms: int) -> None:
    """Height and room for `arms` lines below each other."""
    plot.update_layout(height=90 + 34 * max(2, arms), yaxis={"range": [-0.6, arms - 0.4]})


def zero_line(plot: Any, x: float) -> None:
    """The vertical line of "no difference"."""
    plot.add_vline(x=x, line={"color": BASELINE_COLOUR, "width": 1.5})


def level(plot: Any, y: float) -> None:
    """A dotted horizontal line."""
    plot.add_hline(y=y, line={"color": BASELINE_COLOUR, "width": 1, "dash": "dot"})


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
        line=style.line,
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


def label_ends(plot: Any, look: Mapping[str, Style], curves: Mapping[str, Points]) -> None:
    """Each arm's name at the right of its line, apart from each other where lines are close.

    The page hides them with their arms, and all of them on a narrow screen.
    """
    if len(curves) > MOST_LABELS:
        return
    scaled = np.log10 if plot.layout.yaxis.type == "log" else np.asarray
    if not plot.layout.yaxis.range:
        drawn = [scaled(y[np.isfinite(y)]) for trace in plot.data for y in [np.asarray(trace.y)]]
        low, high = min(y.min() for y in drawn), max(y.max() for y in drawn)
        room = 0.05 * (high - low) or 0.5
        plot.update_layout(yaxis={"range": [low - room, high + room]})
    low, high = plot.layout.yaxis.range
    tall = HEIGHT - TOP - BOTTOM
    pixels = tall / (high - low)
    ends = {arm: float(scaled(points.mean[-1])) for arm, points in curves.items()}
    inside = {arm: y for arm, y in ends.items() if low <= y <= high}
    places = _apart([(y - low) * pixels for y in inside.values()], GAP, tall)
    for (arm, y), place in zip(inside.items(), places, strict=True):
        name = arm if len(arm) <= LONGEST else f"{arm[: LONGEST - 1]}…"
        where = {"xref": "paper", "x": 1, "y": y, "yshift": place - (y - low) * pixels}
        plain = {"showarrow": False, "xanchor": "left", "xshift": 4, "font": {"size": LABEL}}
        key = f'<span style="color:{look[arm].colour}">━</span> '
        plot.add_annotation(text=key + html.escape(name), name=arm, **where, **plain)
    longest = max((min(len(arm), LONGEST) + 2 for arm in inside), default=0)
    plot.update_layout(margin={"r": RIGHT + math.ceil(CHARACTER * longest)})


def _apart(places: Sequence[float], gap: float, most: float) -> list[float]:
    """The places moved least, in order, so that neighbours are `gap` apart, within 0 and `most`."""
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    moved = np.empty(len(places))
    if len(places):
        fitted = isotonic_regression(np.asarray(places)[order] - steps).x
        moved[order] = np.clip(fitted, 0, max(0.0, most - steps[-1])) + steps
    return [float(x) for x in moved]


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
        line=style.line | {"shape": "hv", "width": 1.5},
        fill="tozeroy",
        fillcolor=style.faint,
        name=style.label,
        meta={"arm": style.arm},
        hovertemplate=style.hover(hover),
    )
