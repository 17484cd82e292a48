"""The figures of a line and of a plane, in plotly."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Plot = Any  # a plotly Figure
COLOURS = {"train": "#0a78c2", "val": "#d2600a"}
NOTE = "nats per token"


def line(places: Floats, losses: Mapping[str, Floats], ends: tuple[str, str]) -> Plot:
    """Loss over the place between two weights, a curve for each split."""
    plot = _new(f"0: {ends[0]}<br>1: {ends[1]}", "place between the two", f"loss, {NOTE}")
    for split, values in losses.items():
        plot.add_scatter(
            x=places.tolist(),
            y=values.tolist(),
            name=f"{split} loss",
            mode="lines+markers",
            line={"color": COLOURS[split], "dash": "solid" if split == "train" else "dash"},
        )
    return plot


def plane(
    x: Floats, y: Floats, losses: Floats, marks: Mapping[str, tuple[float, float]], split: str
) -> Plot:
    """Loss as a heat map with contours; marks: models that lie in the plane.

    Losses far above the others would leave one colour for all else, so colours end at twice the
    distance from the lowest to the median.
    """
    low, middle = float(losses.min()), float(np.median(losses))
    top = min(float(losses.max()), low + 2 * (middle - low))
    plot = _new(f"{split} loss, {NOTE}", "distance from the first", "distance from the first")
    plot.add_contour(
        x=x.tolist(),
        y=y.tolist(),
        z=losses.tolist(),
        zmin=low,
        zmax=top,
        ncontours=20,
        contours_coloring="heatmap",
        colorscale="Viridis",
        hovertemplate="%{z:.4f} at (%{x:.3g}, %{y:.3g})<extra></extra>",
    )
    plot.add_scatter(
        x=[place[0] for place in marks.values()],
        y=[place[1] for place in marks.values()],
        text=[html.escape(name) for name in marks],
        mode="markers+text",
        textposition="top center",
        marker={"color": "white", "size": 10, "line": {"color": "black", "width": 1}},
        textfont={"color": "white"},
    )
    return plot


def _new(title: str, across: str, up: str) -> Plot:
    import plotly.graph_objects as go

    plot = go.Figure()
    plot.update_layout(
        template="plotly_white",
        title={"text": title, "font": {"size": 14}},
        xaxis={"title": across},
        yaxis={"title": up},
    )
    return plot
