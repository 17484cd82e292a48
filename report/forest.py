"""The forest plot of the first screen: each arm's difference to its baseline, with its interval.

The page draws it without plotly, from places in percent of the axis, so that it is there at once,
on paper, without scripts, and at any width.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from report.formats import NONE, interval, metric_words, ranks, signed
from report.judgement import Judgement
from report.leaderboard import Row

MOST_TICKS = 5
FAR = 6.0  # times the median reach of the arms: what lies farther is cut, and an arrow says so
ROOM = 0.04  # of the axis, on each side


@dataclass(frozen=True)
class Line:
    """One arm. Places are percent of the axis; None without such a number.

    call: how it is drawn. beside: what is written at the right.
    """

    arm: str
    call: str
    words: str
    rank: str
    beside: str
    middle: float | None
    low: float | None
    high: float | None
    dots: tuple[float, ...]
    beyond: tuple[bool, bool]  # whether some of it lies beyond the axis: left, right


@dataclass(frozen=True)
class Forest:
    """The plot. ticks: (place, text). said: all of it in a sentence, for those who hear it."""

    title: str
    note: str
    said: str
    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...]
    zero: float
    same: tuple[float, float] | None  # where arms count as equivalent


def forest(judgement: Judgement) -> Forest | None:
    """The forest plot of a judgement; None if there is no difference."""
    shown = [row for row in judgement.rows if row.comparison or row.is_baseline]
    ends = [reach for row in shown for reach in _ends(row)]
    if not ends:
        return None
    smallest = judgement.smallest
    left, right = _limits([*ends, -smallest, smallest])
    bases = sorted({row.comparison.baseline for row in shown if row.comparison})
    several = len(bases) > 1
    metric = metric_words(judgement.metric)
    against = "its baseline" if several else bases[0]

    def place(x: float) -> float:
        return round(100 * (min(max(x, left), right) - left) / (right - left), 2)

    def line(row: Row) -> Line:
        c = row.comparison
        if c is None or c.difference is None:
            words = c.words if c else "baseline"
            call = c.call.replace(" ", "-") if c else "baseline"
            middle = place(0) if c is None else None
            return Line(
                row.arm, call, words, ranks(row.ranks), NONE, middle, None, None, (), (False,) * 2
            )
        low, high = _interval(row)
        return Line(
            arm=row.arm,
            call=c.call.replace(" ", "-"),
            words=c.words,
            rank=ranks(row.ranks),
            beside=signed(c.difference),
            middle=place(c.difference),
            low=None if low is None else place(low),
            high=None if high is None else place(high),
            dots=tuple(place(x) for x in c.differences.values() if left <= x <= right),
            beyond=(min(_ends(row)) < left, max(_ends(row)) > right),
        )

    lines = tuple(map(line, shown))
    return Forest(
        title=f"Difference to {against} in {metric}",
        note=_note(smallest, any(any(each.beyond) for each in lines)),
        said=_said(shown, f"Forest plot: difference to {against} in {metric}"),
        lines=lines,
        ticks=tuple((place(x), _tick(x)) for x in _ticks(left, right)),
        zero=place(0),
        same=(place(-smallest), place(smallest)) if smallest else None,
    )


def _interval(row: Row) -> tuple[float | None, float | None]:
    """The interval that the call agrees with."""
    c = row.comparison
    return (c.joint_low, c.joint_high) if c else (None, None)


def _ends(row: Row) -> list[float]:
    """What the axis should reach, for one arm."""
    c = row.comparison
    if c is None or c.difference is None:
        return []
    return [x for x in (*_interval(row), c.difference) if x is not None]


def _limits(ends: Sequence[float]) -> tuple[float, float]:
    """The axis: all `ends` and zero, but none that lies far beyond the others."""
    reach = FAR * statistics.median(map(abs, ends))
    near = [x for x in ends if abs(x) <= reach or not reach]
    low, high = min(0.0, *near), max(0.0, *near)
    room = ROOM * (high - low) or 1e-4
    return low - room, high + room


def _ticks(left: float, right: float) -> Iterable[float]:
    """Round numbers between the limits, zero among them, MOST_TICKS at most."""
    size = 10.0 ** math.floor(math.log10(right - left))
    sizes = (size * f for f in (0.1, 0.2, 0.25, 0.5, 1, 2))
    fits = (s for s in sizes if math.floor(right / s) - math.ceil(left / s) < MOST_TICKS)
    step = next(fits)
    return [k * step for k in range(math.ceil(left / step), math.floor(right / step) + 1)]


def _tick(x: float) -> str:
    return f"{x:+.4g}".replace("-", "−") if x else "0"


def _note(smallest: float, cut: bool) -> str:
    """How to read it."""
    note = (
        "Left of the line is better. Diamonds: means over pairs of equal seeds; dots: the pairs. "
        "Bars: 95 % for all arms together, so that a verdict and its bar agree; the interval of "
        "each arm alone is in the table."
    )
    note += f" Shaded: within ±{smallest:g}, which counts as the same." if smallest else ""
    return note + (" Arrows: the bar or its diamond lies beyond the axis." if cut else "")


def _said(rows: Iterable[Row], title: str) -> str:
    """The plot in words."""
    parts = []
    for row in rows:
        c = row.comparison
        if c and c.difference is not None:
            bar = f" {interval(*_interval(row), signed)}" if c.tested else ""
            parts.append(f"{row.arm} {c.words}, {signed(c.difference)}{bar}")
        elif c:
            parts.append(f"{row.arm} {c.words}")
    return f"{title}. {'; '.join(parts)}."
