"""The figures of a line and of a plane, in plotly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    x: Floats, y: Floats, losses: Floats, marks: Sequence[tuple[str, float, float]], split: str
) -> Plot:
    """Loss as a heat map with contours; marks: models that lie in the plane, with their places.

    Losses far above the others would leave one colour for all else, so colours end at twice the
    distance from the lowest to the median.
    """
    low, middle = float(losses.min()), float(np.median(losses))
    top = min(float(losses.max()), low + 2 * (middle - low))
    names = [f"{number}: {name}" for number, (name, _, _) in enumerate(marks, 1)]
    axes = ["distance from 1, towards 2", "distance from the line through 1 and 2"]
    if len(marks) == 1:
        axes = ["along one random direction", "along the other"]
    plot = _new("<br>".join([*names, f"colour: {split} loss, {NOTE}"]), *axes)
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
        x=[x for _, x, _ in marks],
        y=[y for _, _, y in marks],
        text=[str(number) for number in range(1, len(marks) + 1)],
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
        title={
            "text": title,
            "font": {"size": 13},
            "yref": "container",
            "y": 0.96,
            "yanchor": "top",
        },
        margin={"t": 90},
        xaxis={"title": across},
        yaxis={"title": up},
    )
    return plot
