"""Speed-up over horizons: how many times fewer tokens an arm needs for the same final loss.

An arm that was trained at several lengths D has a final loss L(D) for each, all after their whole
schedule. The baseline's final loss at D is looked up in the arm's L, between lengths by a monotone
cubic in log D (scipy's PCHIP, loss to log D): the arm needs D', and its speed-up is D / D'. On
curves of the form E + A D^-a, lengths a factor of 2 apart, this is right to 1 %
(tests/report/test_horizons.py). A straight line in log D would always be too low.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from report.formats import counted
from report.run import Pair, value_at
from report.sections import Cell, Line, Section, Table
from report.speedups import LEAST_SEEDS, Speedup, over_seeds, shown
from report.statistics import Floats
from report.study import Study

BELOW, BEYOND = "below its shortest length", "beyond its longest length"
LEAST_LENGTHS = 3


class Curve(NamedTuple):
    """Final losses of one arm and pair of seeds; both ascending in log tokens, shape (lengths,)."""

    tokens: Floats  # natural logarithm
    losses: Floats


@dataclass(frozen=True)
class Horizons:
    """Speed-ups of one arm by the baseline's tokens, and by how much each doubling changes them."""

    baseline: str
    speedups: dict[int, Speedup]
    per_doubling: Speedup | None
    why: str = ""  # nothing could be compared


def horizons(study: Study) -> dict[str, Horizons]:
    """By arm without its length; only arms that have three lengths or more, like their baseline."""
    found: dict[str, Horizons] = {}
    lengths = _lengths(study)
    for arm, labels in lengths.items():
        base = study.baseline_of(labels[0])
        base = study.without_length(base) if base else ""
        theirs = lengths.get(base, [])
        if base != arm and min(len(labels), len(theirs)) >= LEAST_LENGTHS:
            found[arm] = _compared(study, base, labels, theirs)
    return found


def _lengths(study: Study) -> dict[str, list[str]]:
    """Names of each arm's lengths."""
    found: dict[str, list[str]] = {}
    for label in study.arms:
        found.setdefault(study.without_length(label), []).append(label)
    return found


def _compared(study: Study, base: str, mine: Sequence[str], theirs: Sequence[str]) -> Horizons:
    """One arm."""
    lost = sum(run.diverged for label in (*mine, *theirs) for run in study.of(label))
    if lost:  # the other seeds would show too high a speed-up
        return Horizons(base, {}, None, f"{counted(lost, 'run')} of it or of {base} diverged")
    a, b = _curves(study, mine), _curves(study, theirs)
    pairs = sorted(a.keys() & b.keys())
    if not pairs:
        return Horizons(base, {}, None, "no seed has finished at every length of both arms")
    if any((np.diff(curve.losses) >= 0).any() for pair in pairs for curve in (a[pair], b[pair])):
        return Horizons(base, {}, None, "a final loss does not fall from length to length")
    tokens = b[pairs[0]].tokens
    each = {
        round(math.exp(d)): {pair: d - _tokens_at(a[pair], b[pair].losses[i]) for pair in pairs}
        for i, d in enumerate(tokens)
    }
    slopes = {pair: _slope(a[pair], b[pair]) for pair in pairs}
    known = all(map(math.isfinite, slopes.values()))
    doubling = over_seeds({p: s * math.log(2) for p, s in slopes.items()}) if known else None
    return Horizons(base, {d: _speedup(logs) for d, logs in each.items()}, doubling)


def _curves(study: Study, labels: Sequence[str]) -> dict[Pair, Curve]:
    """L(D) of each pair of seeds that has finished at every length."""
    points: dict[Pair, list[tuple[float, float]]] = {}
    for label in labels:
        for run in study.finished(label):
            steps, batch = run.total_steps, value_at(run.config, "train.batch_tokens")
            if steps and batch and run.final_loss is not None:
                points.setdefault(run.pair, []).append((math.log(steps * batch), run.final_loss))
    whole = {pair: sorted(found) for pair, found in points.items() if len(found) == len(labels)}
    return {pair: Curve(*np.array(found).T) for pair, found in whole.items()}


def _tokens_at(curve: Curve, loss: float) -> float:
    """log D at which the arm ends at `loss`; -inf below its shortest length, inf above."""
    if loss > curve.losses[0]:
        return -math.inf
    if loss < curve.losses[-1]:
        return math.inf
    return float(PchipInterpolator(curve.losses[::-1], curve.tokens[::-1])(loss))


def _slope(mine: Curve, theirs: Curve) -> float:
    """Slope of log speed-up over log D, by least squares at all losses that both curves have.

    NaN if there are fewer than two.
    """
    losses = np.unique(np.concatenate([mine.losses, theirs.losses]))
    spent = np.array([[_tokens_at(curve, x) for x in losses] for curve in (mine, theirs)])
    a, b = spent[:, np.isfinite(spent).all(axis=0)]
    return float(np.polyfit(b, b - a, 1)[0]) if len(b) > 1 else math.nan


def _speedup(logs: Mapping[Pair, float]) -> Speedup:
    """One length, from the logarithms; words instead of a ratio if one is infinite.

    That is where the arm would need tokens outside its lengths.
    """
    if all(map(math.isfinite, logs.values())):
        return over_seeds(logs)
    words = []
    sides = {math.inf: BELOW, -math.inf: BEYOND}
    for infinite, side in sides.items():
        seeds = sum(x == infinite for x in logs.values())
        if seeds:
            words.append(side if seeds == len(logs) else f"{side} for {seeds} of {len(logs)} seeds")
    return Speedup(math.nan, None, None, ", ".join(words))


def section(study: Study) -> Section | None:
    """The speed-ups as a table; None without arms of several lengths."""
    found = horizons(study)
    if not found:
        return None
    tokens = sorted({d for each in found.values() for d in each.speedups})
    rows = [_line(arm, each, tokens) for arm, each in found.items() if each.speedups]
    lines = [f"{arm}: {each.why}" for arm, each in found.items() if each.why]
    text = (
        "The baseline's tokens over the arm's tokens for the same final loss, each after its whole "
        "schedule. A column takes the baseline's loss at one length; the arm's is interpolated in "
        "log tokens between its lengths, and outside them nothing is said. per doubling: the "
        "factor by which twice the tokens change the speed-up; 1 means that it lasts. [95 %], or "
        f"with fewer than {LEAST_SEEDS} seeds (lowest to highest) of the seeds."
    )
    columns = ("arm", "against", *(f"{d:,} tokens" for d in tokens), "per doubling")
    tables = [Table(columns, rows)] if rows else []
    return Section("horizons", "Speed-up over horizons", text, tables, lines)


def _line(arm: str, each: Horizons, tokens: Sequence[int]) -> Line:
    """One arm's row."""
    cells = [shown(each.speedups.get(d)) for d in tokens]
    return [Cell(arm, "arm"), each.baseline, *cells, shown(each.per_doubling)]
