"""Further trials: outward where the best lies at an edge of what was tried, else inward.

A round gives every arm one further trial, so that trials stay equal. Its places follow from the
trials before it, so that any planner finds the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from contest.file import Setting
from contest.schema import Range

EDGE = 0.05  # of a searched range, at either end
STRIP = 0.25  # of a searched range, by which it is widened

Ranges = Mapping[str, Range]
Tried = Sequence[tuple[Setting, float]]  # settings and their losses; infinite if diverged


# ----------------------------------------------------------------------------------------- grids


def grid_edges(tried: Tried, best: Setting, keys: Sequence[str]) -> list[str]:
    """Which of `keys` have their best value at an end of the values tried."""
    return [key for key in keys if best[key] in (_values(tried, key)[0], _values(tried, key)[-1])]


def outward(tried: Tried, best: Setting, keys: Sequence[str]) -> Iterator[Setting]:
    """The best setting with one key beyond its edge, for each such key."""
    for key in grid_edges(tried, best, keys):
        yield best | {key: _beyond(_values(tried, key), best[key])}


def inward(tried: Tried, best: Setting, keys: Sequence[str], number: int) -> Iterator[Setting]:
    """Settings between the best one and its neighbours, the better neighbour first.

    number: of the round, from 1; each begins with another key. If whole numbers leave no room in
    between, settings beyond either end follow.
    """
    first = (number - 1) % len(keys)
    turn = [*keys[first:], *keys[:first]]
    for key in turn:
        values = _values(tried, key)
        at = values.index(best[key])
        beside = [*values[max(0, at - 1) : at], *values[at + 1 : at + 2]]
        neighbours = [best | {key: value} for value in beside]
        for neighbour in sorted(neighbours, key=lambda setting: _loss(tried, setting)):
            yield best | {key: _between(best[key], neighbour[key])}
    for key in turn:
        values = _values(tried, key)
        for end in (values[-1], values[0]):
            yield best | {key: _beyond(values, end)}


def close(losses: Sequence[float], std: float | None, seeds: int) -> int:
    """How many of the settings are about as good as the best one, which counts.

    losses: means over `seeds` tuning seeds, ascending. std: of the difference between two settings
    with one seed. If it is not known, since there was one seed, the best two are close.
    """
    if std is None:
        return min(2, len(losses))
    return sum(loss - losses[0] <= std / math.sqrt(seeds) for loss in losses)


def _values(tried: Tried, key: str) -> list[float]:
    """The values of a key that were tried, ascending."""
    return sorted({setting[key] for setting, _ in tried})


def _loss(tried: Tried, setting: Setting) -> float:
    """The loss of a setting; infinite if it was not tried."""
    return next((loss for other, loss in tried if other == setting), math.inf)


def _beyond(values: Sequence[float], end: float) -> float:
    """As far beyond an end of ascending `values` as the value next to it lies before it.

    By their ratio if all are positive, else by their difference.
    """
    beside = values[1] if end == values[0] else values[-2]
    return _like(end * end / beside if values[0] > 0 else 2 * end - beside, end, beside)


def _between(a: float, b: float) -> float:
    """The geometric mean of two positive numbers, else the mean."""
    return _like(math.sqrt(a * b) if min(a, b) > 0 else (a + b) / 2, a, b)


def _like(value: float, *others: float) -> float:
    """A whole number among whole numbers; else six digits, which keeps flags readable."""
    return round(value) if all(isinstance(other, int) for other in others) else _short(value)


def _short(value: float) -> float:
    """To six digits."""
    return float(f"{value:.6g}")


# ---------------------------------------------------------------------------------------- ranges


def range_edges(tried: Tried, best: Setting, ranges: Ranges, first: Ranges) -> list[str]:
    """Which keys have their best value in the outer twentieth of their range, on its scale.

    Or beyond the `first` range of the search, with nothing tried further out.
    """
    found = []
    for key, r in ranges.items():
        low, high, x = map(_scale(r), (r.low, r.high, best[key]))
        inside = low + EDGE * (high - low) < x < high - EDGE * (high - low)
        outermost = grid_edges(tried, best, [key])
        if not inside or (outermost and not first[key].low <= best[key] <= first[key].high):
            found.append(key)
    return found


def strip(r: Range, value: float) -> Range:
    """What lies beyond the end of a range that `value` is near: a quarter of it, on its scale."""
    low, high = map(_scale(r), (r.low, r.high))
    step = STRIP * (high - low)
    upwards = _scale(r)(value) > (low + high) / 2
    end = high + step if upwards else low - step
    end = math.exp(end) if r.log else end
    low, high = (r.high, _short(end)) if upwards else (_short(end), r.low)
    if isinstance(r.low, int) and isinstance(r.high, int):  # at least two new whole numbers
        low = r.high + 1 if upwards else min(r.low - 2, round(end))
        high = max(r.high + 2, round(end)) if upwards else r.low - 1
    return Range(low=low, high=high, log=r.log)


def widened(r: Range, by: Range) -> Range:
    """A range with a strip beyond one of its ends."""
    return Range(low=min(r.low, by.low), high=max(r.high, by.high), log=r.log)


def _scale(r: Range) -> Callable[[float], float]:
    """The scale on which a range is even."""
    return math.log if r.log else float
