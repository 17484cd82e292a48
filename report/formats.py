"""Numbers and names as every table, figure and sentence of a report prints them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from report.leaderboard import Spread
from report.statistics import ALPHA

NONE = "–"  # what is not known, or not defined


def loss(x: float | None) -> str:
    """Nats to four decimals."""
    if x is None or math.isnan(x):
        return NONE
    return f"{x:.4f}" if math.isfinite(x) else "∞"


def signed(x: float | None) -> str:
    """A difference in nats, to four decimals."""
    return NONE if x is None else f"{x:+.4f}".replace("-", "−")


def interval(low: float | None, high: float | None, form: Callable[[float | None], str]) -> str:
    """[low, high]."""
    return NONE if low is None or high is None else f"[{form(low)}, {form(high)}]"


def short(x: float | None, digits: int = 3) -> str:
    """Significant digits; an infinite cost is "not reached"."""
    if x is None or math.isnan(x):
        return NONE
    if math.isinf(x):
        return "not reached"
    return f"{x:,.0f}" if round(abs(x)) >= 10**digits else f"{x:.{digits}g}"


def probability(p: float | None) -> str:
    """A p value, with as many digits as show on which side of ALPHA it lies."""
    if p is None:
        return NONE
    if p < 1e-4:
        return "< 0.0001"
    digits = 4 if abs(p - ALPHA) < ALPHA / 10 else 2
    while digits < 17 and (float(f"{p:.{digits}g}") < ALPHA) != (p < ALPHA):
        digits += 1
    return f"{p:.{digits}g}"


def ranged(spread: Spread | None) -> str:
    """Median (lowest to highest); in words where some runs have no such number."""
    if spread is None:
        return NONE
    middle, low, high = map(short, (spread.median, spread.low, spread.high))
    if spread.missed == spread.runs or not spread.missed:
        return middle if spread.low == spread.high else f"{middle} ({low} to {high})"
    reached = low if spread.low == spread.high else f"{low} to {high}"
    return f"{reached} in {spread.runs - spread.missed} of {spread.runs} runs, else not reached"


def setting(values: Mapping[str, Any] | None) -> str:
    """A tuned setting; its keys without their tables where that leaves them different."""
    names = Counter(key.rpartition(".")[2] for key in values or {})
    parts = []
    for key, value in (values or {}).items():
        last = key.rpartition(".")[2]
        parts.append(f"{last if names[last] == 1 else key} = {value}")
    return ", ".join(parts) or NONE


def hours(seconds: float) -> str:
    """A time in the unit that it is read in: "42 s", "3.5 min", "12.1 h"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 60 else f"{minutes / 60:,.1f} h"


def counted(number: int, noun: str) -> str:
    """ "1 run", "3 runs"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def ranks(places: tuple[int, int] | None) -> str:
    """The ranks that an arm may have: "1–4"."""
    if places is None:
        return NONE
    first, last = places
    return str(first) if first == last else f"{first}–{last}"


def metric_words(metric: str) -> str:
    """A metric's name for reading."""
    return metric.replace("_", " ")


def axis_words(axis: str) -> str:
    """An axis of speed-ups for reading."""
    return "FLOPs" if axis == "flops" else axis
