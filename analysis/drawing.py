"""The figures of a line, of a plane and of widths, in plotly."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import write_atomically

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


def widths(measured: Sequence[Mapping[str, Any]], title: str) -> Plot:
    """Change and size of activations over the width: a column of panels for each parametrization.

    measured: rows of "parametrization", "place", "width", "size", "change".
    """
    import plotly.graph_objects as go
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    parametrizations = list(dict.fromkeys(row["parametrization"] for row in measured))
    kinds = {"change": "mean |change|", "size": "mean |activation|"}
    plot = make_subplots(
        rows=len(kinds),
        cols=len(parametrizations),
        column_titles=parametrizations,
        shared_xaxes=True,
        shared_yaxes="rows",
        vertical_spacing=0.06,
        horizontal_spacing=0.04,
    )
    places = list(dict.fromkeys(row["place"] for row in measured))
    for row, (kind, said) in enumerate(kinds.items(), 1):
        for column, parametrization in enumerate(parametrizations, 1):
            for number, place in enumerate(places):
                own = [
                    each
                    for each in measured
                    if (each["parametrization"], each["place"]) == (parametrization, place)
                ]
                curve = go.Scatter(
                    x=[each["width"] for each in own],
                    y=[each[kind] for each in own],
                    name=place,
                    legendgroup=place,
                    showlegend=row == column == 1,
                    mode="lines+markers",
                    line={"color": qualitative.D3[number % 10]},
                    marker={"symbol": number // 10},
                )
                plot.add_trace(curve, row=row, col=column)
        plot.update_yaxes(title_text=said, row=row, col=1)
    all_widths = sorted({row["width"] for row in measured})
    plot.update_xaxes(type="log", tickvals=all_widths)
    plot.update_xaxes(title_text="width", row=len(kinds))
    plot.update_yaxes(type="log", exponentformat="power", dtick=1)
    plot.update_layout(template="plotly_white", title={"text": title, "font": {"size": 13}})
    return plot


def save(page: Path, plot: Plot, rows: Sequence[Mapping[str, Any]]) -> None:
    """The figure as a page of its own, and its numbers beside it as CSV; prints both names."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(page, plot.to_html(include_plotlyjs=True))
    write_atomically(page.with_suffix(".csv"), table.getvalue())
    print(page, page.with_suffix(".csv"), sep="\n")


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
