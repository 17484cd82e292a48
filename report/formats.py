"""Numbers and names as every table, figure and sentence of a report prints them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from report.leaderboard import Spread

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
    return f"{x:,.0f}" if abs(x) >= 10**digits else f"{x:.{digits}g}"


def probability(p: float | None) -> str:
    """A p value."""
    if p is None:
        return NONE
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def ranged(spread: Spread | None) -> str:
    """Median (lowest to highest)."""
    if spread is None:
        return NONE
    middle, low, high = map(short, (spread.median, spread.low, spread.high))
    return middle if spread.low == spread.high else f"{middle} ({low} to {high})"


def setting(values: Mapping[str, Any] | None) -> str:
    """A tuned setting."""
    return ", ".join(f"{key} = {value}" for key, value in (values or {}).items()) or NONE


def metric_words(metric: str) -> str:
    """A metric's name for reading."""
    return metric.replace("_", " ")


def axis_words(axis: str) -> str:
    """An axis of speed-ups for reading."""
    return "FLOPs" if axis == "flops" else axis
