"""Where the spread of a crossed contest comes from: initial weights, order of data, the rest."""

from __future__ import annotations

import math

from report.crossed import Values, is_crossed, split, table
from report.formats import loss, metric_words
from report.judgement import Judgement
from report.sections import Cell, Line, Section, Table


def variances(judgement: Judgement) -> Section | None:
    """Standard deviations by source, of each arm and of its differences; None if not crossed."""
    losses = [line for row in judgement.rows for line in _line(row.arm, row.values)]
    gaps = [
        line
        for row in judgement.rows
        if row.comparison
        for line in _line(row.arm, row.comparison.differences)
    ]
    if not losses:
        return None
    columns = ("initial weights", "order of data", "rest", "seeds x data seeds")
    text = (
        f"Standard deviations of the {metric_words(judgement.metric)}, by the method of moments "
        "for two random factors. rest: what only a seed and an order of data together give. 0: the "
        "estimate is not above zero. With few seeds these are rough. What a seed adds to both arms "
        "of a pair is not in a difference."
    )
    tables = [
        Table(("arm", *columns), losses, "Of the loss of each arm"),
        Table(("arm", *columns), gaps, "Of its difference to the baseline"),
    ]
    filled = [each for each in tables if each.rows]
    return Section("variances", "Where the spread comes from", text, filled)


def _line(arm: str, values: Values) -> list[Line]:
    """An arm's line, if its values make a table of at least two by two."""
    if not is_crossed(values) or not all(map(math.isfinite, values.values())):
        return []
    x = table(values)
    if min(x.shape) < 2:
        return []
    stds = [loss(math.sqrt(max(0.0, variance))) for variance in split(x)]
    return [[Cell(arm, "arm"), *stds, f"{x.shape[0]} x {x.shape[1]}"]]
