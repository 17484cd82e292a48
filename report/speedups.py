"""Speed-ups: what the baseline spends to reach its final loss, over what an arm spends on it.

Also what a run had spent by a given evaluation, and by the first one at or below a target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from record import metrics
from record.power import ALPHA
from report.run import Run
from report.statistics import Floats, resampled
from report.study import Study

AXES = ("tokens", "steps", "seconds", "flops")


@dataclass(frozen=True)
class Speedup:
    """Baseline's cost of its final loss over the arm's cost of the same loss; above 1 is faster.

    ratio: 0.0 if the arm never reaches that loss. low, high: 95 % of the bootstrap over seeds, None
    with one seed.
    """

    ratio: float
    low: float | None
    high: float | None
    words: str


class _Curves(NamedTuple):
    """Costs and val losses of an arm's runs, both of shape (runs, evaluations)."""

    costs: Floats
    losses: Floats


def speedups(study: Study, arm: str, base: str) -> dict[str, Speedup]:
    """On each axis: baseline's cost of its own final loss over the arm's cost of that loss.

    Curves are means over seeds; the interval is the percentile bootstrap over seeds, drawn
    together for both arms if the runs are pairs. An axis that is not recorded is left out.
    """
    mine, theirs = study.finished(arm), study.finished(base)
    if not mine or not theirs:
        return {}
    if any(run.diverged for run in study.of(arm)):
        return dict.fromkeys(AXES, Speedup(0.0, None, None, "not reached: a run diverged"))
    paired = [run.pair for run in mine] == [run.pair for run in theirs]
    draws = resampled((len(mine), len(theirs)), np.random.default_rng(0), paired)
    found = {axis: _speedup(_curves(mine, axis), _curves(theirs, axis), draws) for axis in AXES}
    return {axis: speedup for axis, speedup in found.items() if speedup}


def _speedup(
    mine: _Curves | None, theirs: _Curves | None, draws: Sequence[Floats]
) -> Speedup | None:
    """One axis. draws: bootstrap weights of the seeds, (resamples, runs) for each side."""
    if mine is None or theirs is None:
        return None
    counts = len(mine.costs), len(theirs.costs)
    ratio = float(_ratios(mine, theirs, [np.full((1, n), 1 / n) for n in counts])[0])
    low = high = None
    if min(counts) > 1:
        ratios = _ratios(mine, theirs, draws)
        low, high = map(float, np.quantile(ratios, [ALPHA / 2, 1 - ALPHA / 2]))
    return Speedup(ratio, low, high, _words(ratio))


def _words(ratio: float) -> str:
    """ "1.20 x" or "not reached"."""
    if math.isnan(ratio):
        return "not defined"
    return f"{ratio:.2f} x" if ratio > 0 else "not reached"


def _ratios(mine: _Curves, theirs: _Curves, weights: Sequence[Floats]) -> Floats:
    """Baseline's cost over the arm's for each row of seed weights; 0 where the arm misses."""
    my_costs, my_losses = (weights[0] @ x for x in mine)
    base_costs, base_losses = (weights[1] @ x for x in theirs)
    target = base_losses[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return crossing(base_costs, base_losses, target) / crossing(my_costs, my_losses, target)


def crossing(costs: Floats, losses: Floats, target: Floats) -> Floats:
    """Cost at which each curve first falls to its target, between evaluations on a straight line.

    costs, losses: (curves, evaluations). target: (curves,). Infinite where it never does.
    """
    below = losses <= target[:, None]
    k = np.argmax(below, axis=1)
    rows = np.arange(len(k))
    before = np.maximum(k - 1, 0)  # k itself where the first evaluation is below the target
    drop = losses[rows, before] - losses[rows, k]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(drop > 0, (losses[rows, before] - target) / drop, 1.0)
    at = costs[rows, before] + part * (costs[rows, k] - costs[rows, before])
    return np.where(below.any(axis=1), at, np.inf)


# ------------------------------------------------------------------------------------------- costs


def _curves(runs: Sequence[Run], axis: str) -> _Curves | None:
    """Curves at the evaluations that all runs have; None if the axis is not recorded."""
    steps = runs[0].val["step"]
    for run in runs[1:]:
        steps = np.intersect1d(steps, run.val["step"])
    costs = [cost_at(run, axis, steps) for run in runs]
    if not len(steps) or any(cost is None for cost in costs):
        return None
    losses = [run.val["val/loss"][np.isin(run.val["step"], steps)] for run in runs]
    return _Curves(np.array(costs), np.array(losses))


def cost_at(run: Run, axis: str, steps: Floats) -> Floats | None:
    """What `run` had spent before the evaluations at `steps`; None if it is not recorded.

    axis: one of AXES; the result is in tokens, updates, seconds of the training clock or FLOPs,
    shape (evaluations,).
    """
    if axis == "steps":
        return steps
    name = "time/train_seconds" if axis == "seconds" else "tokens"
    if name not in run.train:
        return None
    known = np.isfinite(run.train[name])
    after = np.concatenate([[0.0], run.train["step"][known] + 1])
    spent = np.interp(steps, after, np.concatenate([[0.0], run.train[name][known]]))
    if axis != "flops":
        return spent
    each = run.summary.get("flops_per_token")
    return spent * each if each else None


def to_target(run: Run, target: float) -> dict[str, float]:
    """record.metrics.to_target of a run, from the evaluations and the update before each of them.

    target: val loss in nats. The costs are in updates, tokens and seconds of the training clock.
    """
    losses = run.val.get("val/loss", np.array([]))
    evaluations = zip(run.val["step"].tolist(), losses.tolist(), strict=True)
    lines = [{"step": int(step), "val/loss": loss} for step, loss in evaluations]
    spent = [name for name in ("step", "time/train_seconds", "tokens") if name in run.train]
    before = np.searchsorted(run.train["step"], run.val["step"]) - 1
    lines += [{name: float(run.train[name][i]) for name in spent} for i in before if i >= 0]
    return metrics.to_target(lines, target)
