"""What updates showed of every tensor (record/inside.py), as heat maps of layer over step.

Its curves by role are in metrics.jsonl, and drawn as all others (report/figures.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from record.inside import Measured
from report import drawing
from report.drawing import Figure, Style
from report.run import Run, value_at
from report.study import Study

MOST_COLUMNS = 60  # of a heat map; more steps are averaged
MOST_ARMS = 12  # side by side

Look = Mapping[str, Style]  # by arm


def heat_maps(study: Study, look: Look) -> list[Figure]:
    """Local gain, and update over weight; of each arm its first seed that measured them."""
    runs = {arm: run for arm in study.arms if (run := _measured(study, arm))}
    shown = dict(list(runs.items())[:MOST_ARMS])
    if not shown:
        return []
    seeds = ", ".join(dict.fromkeys(f"seed {run.seed}" for run in shown.values()))
    cut = f" Only the first {MOST_ARMS} of {len(runs)} arms." if len(shown) < len(runs) else ""
    where = f"Rows: blocks with their hidden matrices, embeddings, vectors; {seeds}.{cut}"
    gain = (
        "By how much the optimizer scales the gradient: norm of the update / (lr x norm of the "
        "gradient), median over a row's tensors, on a logarithmic scale."
    )
    ratio = "Norm of the update / norm of the weights, median over a row's tensors, logarithmic."
    return [
        _heat_map("gain", "Local gain by layer", f"{gain} {where}", shown, look),
        _heat_map("update_ratio", "Update over weight by layer", f"{ratio} {where}", shown, look),
    ]


def _measured(study: Study, arm: str) -> Run | None:
    return next((run for run in study.of(arm) if run.inside is not None), None)


def _heat_map(column: str, title: str, note: str, runs: Mapping[str, Run], look: Look) -> Figure:
    """One panel for each arm, all in one scale of colours."""
    panels = {arm: _rows(run.inside, column) for arm, run in runs.items() if run.inside}
    tallest = max(len(names) for names, _, _ in panels.values())
    plot = drawing.panels(len(panels), 90 + 16 * tallest)
    middles = {}
    for number, (arm, (names, steps, values)) in enumerate(panels.items()):
        drawing.heat(
            plot,
            look[arm],
            number,
            titles=(look[arm].label, ""),
            x=steps,
            y=names,
            z=values,
            hover="%{y}, step %{x:.6~g}: 10^%{z:.2f}",
        )
        finite = values[np.isfinite(values)]
        middles[arm] = f"{10 ** float(np.median(finite)):.3g}" if len(finite) else "none"
    bar = {"thickness": 12, "tickprefix": "10^", "len": 0.9}
    plot.update_layout(coloraxis={"colorscale": "Viridis", "colorbar": bar})
    said = drawing.in_words(f"{title}; medians over layers and steps", middles)
    return Figure(f"inside_{column}", title, note, said, plot, folded=True)


def _rows(measured: Measured, column: str) -> tuple[list[str], list[float], NDArray[np.float64]]:
    """Names of the rows, steps of the columns, and log10 of the medians, (rows, columns)."""
    places: dict[str, list[int]] = {}
    for i, (layer, role) in enumerate(zip(measured.layers, measured.roles, strict=True)):
        name = f"block {layer}" if role == "hidden" and layer is not None else role
        places.setdefault(name, []).append(i)
    values = np.abs(measured.columns[column])
    with np.errstate(divide="ignore"):
        logs = np.log10(np.where(values > 0, values, np.nan))
    pieces = np.array_split(np.arange(len(measured.steps)), min(MOST_COLUMNS, len(measured.steps)))
    table = np.full((len(places), len(pieces)), np.nan)
    for row, tensors in enumerate(places.values()):
        for k, piece in enumerate(pieces):
            some = logs[piece][:, tensors]
            if np.isfinite(some).any():
                table[row, k] = np.nanmedian(some)
    return list(places), [float(measured.steps[piece].mean()) for piece in pieces], table.round(3)


def with_noise_scale(study: Study) -> Study:
    """Adds noise_scale to the summaries of runs that measured it: tokens, at the end.

    It is the median of the last tenth of the recorded values, which are ratios of moving averages.
    """
    runs = []
    for run in study.runs:
        known = run.train.get("inside/noise_scale", np.array([]))
        known = known[np.isfinite(known)]
        if len(known):
            end = float(np.median(known[-max(1, len(known) // 10) :]))
            run = replace(run, summary=run.summary | {"noise_scale": end})
        runs.append(run)
    return replace(study, runs=runs)


def batches(study: Study) -> list[int]:
    """Tokens per update of the runs that measured the noise scale, each number once."""
    runs = [run for run in study.runs if "inside/noise_scale" in run.train]
    return sorted({value_at(run.config, "train.batch_tokens") for run in runs} - {None})
