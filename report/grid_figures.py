"""Loss by setting: over learning rates, and over a tuning grid in two keys, as a map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from record.contest import TunedArm
from report import drawing
from report.drawing import Figure, Style
from report.formats import loss, setting
from report.sensitivity import Sensitivity
from report.study import Study

Look = Mapping[str, Style]  # by arm


def grid_maps(study: Study, look: Look) -> Figure | None:
    """The tuning losses of every arm whose trials differ in exactly two keys of numbers."""
    arms = study.tuning.arms if study.tuning else {}
    first = {study.without_length(arm): arm for arm in reversed(study.arms)}  # of its lengths
    maps = {arm: keys for arm, tuned in arms.items() if arm in first and (keys := _keys(tuned))}
    if not maps:
        return None
    sides = {arm: _values(arms[arm], keys) for arm, keys in maps.items()}
    plot = drawing.panels(len(maps), 100 + 34 * max(len(ys) for _, ys in sides.values()))
    for number, (arm, (x, y)) in enumerate(maps.items()):
        xs, ys = sides[arm]
        _panel(plot, look[first[arm]], number, arms[arm], (x, y), (xs, ys))
    bar = {"thickness": 12, "len": 0.9}
    plot.update_layout(coloraxis={"colorscale": "Viridis", "reversescale": True, "colorbar": bar})
    note = (
        "Final val loss of each setting tried, mean over the tuning seeds; in brackets: the one "
        "chosen. Empty: not tried. ∞: diverged, without a colour. One scale of colours for all "
        "arms, cut a nat above the best."
    )
    finite = [t.loss for arm in maps for t in arms[arm].trials if t.loss is not None]
    if finite:
        top = min(max(finite), min(finite) + 1)
        plot.update_layout(coloraxis={"cmin": min(finite), "cmax": top})
    best = {arm: f"{setting(arms[arm].best)}, {loss(arms[arm].best_loss)}" for arm in maps}
    said = drawing.in_words("Best setting of the grid, and its loss", best)
    return Figure("grid_maps", "Loss over the tuning grid", note, said, plot)


def _keys(tuned: TunedArm) -> tuple[str, str] | None:
    """The two keys in which the trials differ, if they are two and hold numbers."""
    found: dict[str, set[object]] = {}
    for trial in tuned.trials:
        for key, value in trial.setting.items():
            found.setdefault(key, set()).add(value)
    differ = [key for key, values in found.items() if len(values) > 1]
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool)
        for key in differ
        for value in found[key]
    )
    return (differ[0], differ[1]) if len(differ) == 2 and numbers else None


def _values(tuned: TunedArm, keys: tuple[str, str]) -> tuple[list[float], list[float]]:
    """The values of both keys, ascending."""
    x, y = (sorted({trial.setting[key] for trial in tuned.trials}) for key in keys)
    return x, y


def _panel(
    plot: Any,
    style: Style,
    number: int,
    tuned: TunedArm,
    keys: tuple[str, str],
    values: tuple[list[float], list[float]],
) -> None:
    """The trials of one arm as cells, with their losses."""
    (x, y), (xs, ys) = keys, values
    cells = np.full((len(ys), len(xs)), np.nan)
    words = [["" for _ in xs] for _ in ys]
    for trial in tuned.trials:
        row, column = ys.index(trial.setting[y]), xs.index(trial.setting[x])
        if trial.loss is not None:
            cells[row, column] = trial.loss
        text = "∞" if trial.status == "diverged" else "" if trial.loss is None else loss(trial.loss)
        words[row][column] = f"[{text}]" if trial.setting == tuned.best else text
    short = [key.rpartition(".")[2] for key in keys]
    drawing.heat(
        plot,
        style,
        number,
        titles=(f"{style.label}: {short[0]}", short[1]),
        x=[f"{value:g}" for value in xs],
        y=[f"{value:g}" for value in ys],
        z=cells,
        hover="%{x}, %{y}: %{text}",
        text=words,
    )


def sensitivity(study: Study, found: Mapping[str, Sensitivity], look: Look) -> Figure | None:
    """Loss over learning rates, from the tuning runs; an arm of several lengths is drawn once."""
    if not found:
        return None
    first = {study.without_length(arm): arm for arm in reversed(study.arms)}  # of its lengths
    axis = {"title": "learning rate", "type": "log"}
    plot = drawing.new(xaxis=axis, yaxis={"title": "final val loss"})
    for arm, s in found.items():
        style = look[first[arm]]
        plot.add_scatter(
            x=list(s.losses),
            y=[min(loss, s.initial) for loss in s.losses.values()],
            mode="lines+markers",
            name=style.label,
            line=style.line,
            marker={"size": 8, "symbol": style.symbol},
            meta={"arm": style.arm},
            hovertemplate=style.hover("%{y:.4f} at lr %{x:.3g}"),
        )
    note = (
        "Tuning runs only; at each rate the best of the other settings. A flat curve is easy to "
        "tune. A diverged run counts as the loss before training."
    )
    scores = {arm: loss(s.score) for arm, s in found.items()}
    said = drawing.in_words("Sensitivity to the learning rate, nats", scores)
    return Figure("sensitivity", "Sensitivity to the learning rate", note, said, plot)
