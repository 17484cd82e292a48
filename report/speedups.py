"""Speed-ups within a run: the baseline's cost of its final loss, over an arm's cost of that loss.

The learning rate of most runs decays, and a run whose rate is still high has a higher loss than it
will have; so this ratio depends on the schedules. report/horizons.py compares finished runs.

Also what a run had spent by a given evaluation, and by the first one at or below a target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal, NamedTuple

import numpy as np

from record import metrics
from report.crossed import is_crossed, mean_test, table
from report.run import Pair, Run
from report.statistics import Floats
from report.study import Study

AXES = ("tokens", "steps", "seconds", "flops")
LEAST_SEEDS = 5  # for an interval of 95 %


@dataclass(frozen=True)
class Speedup:
    """Baseline's cost of its final loss over the arm's cost of the same loss; above 1 is faster.

    ratio: 0.0 if the arm does not reach that loss. low, high: over seeds, None with one seed or
    without pairs. interval: what they are: 95 % from LEAST_SEEDS seeds on, else lowest and highest.
    """

    ratio: float
    low: float | None
    high: float | None
    words: str
    interval: Literal["95 %", "range of seeds", ""] = ""


class _Curves(NamedTuple):
    """Costs and val losses of an arm's runs, both of shape (runs, evaluations)."""

    costs: Floats
    losses: Floats


def speedups(study: Study, arm: str, base: str) -> dict[str, Speedup]:
    """On each axis: baseline's cost of its own final loss over the arm's cost of that loss.

    Within each pair of runs with equal seeds; without a pair, on the mean curves. An axis that is
    not recorded is left out.
    """
    mine, theirs = study.finished(arm), study.finished(base)
    if not mine or not theirs:
        return {}
    if any(run.diverged for run in study.of(arm)):
        return dict.fromkeys(AXES, Speedup(0.0, None, None, "not reached: a run diverged"))
    found = {axis: _on_axis(mine, theirs, axis) for axis in AXES}
    times = [study.step_ms.get(study.without_length(name)) for name in (arm, base)]
    if times[0] and times[1]:  # step times that were measured alone
        found["seconds"] = _on_axis(mine, theirs, "steps", median(times[1]) / median(times[0]))
    return {axis: speedup for axis, speedup in found.items() if speedup}


def _on_axis(
    mine: Sequence[Run], theirs: Sequence[Run], axis: str, factor: float = 1.0
) -> Speedup | None:
    """One axis; None if it is not recorded. Only runs that had their machine count for seconds.

    factor: by which every ratio is multiplied; of updates it makes seconds.
    """
    if axis == "seconds":
        mine, theirs = ([run for run in runs if not run.shared] for runs in (mine, theirs))
        if not mine or not theirs:
            return Speedup(math.nan, None, None, "withheld")
    twins = {run.pair: run for run in theirs}
    pairs = [(run, twins[run.pair]) for run in mine if run.pair in twins]
    if not pairs:
        a, b = _curves(mine, axis), _curves(theirs, axis)
        return None if a is None or b is None else _of_means(a, b, factor)
    logs: dict[Pair, float] = {}
    for run, twin in pairs:
        a, b = _curves([run], axis), _curves([twin], axis)
        if a is None or b is None:
            return None
        with np.errstate(divide="ignore"):
            logs[run.pair] = float(np.log(factor * _ratio(a, b)))
    return over_seeds(logs)


def _of_means(mine: _Curves, theirs: _Curves, factor: float) -> Speedup:
    """From the means of runs that are no pairs, so without an interval."""
    a, b = (
        _Curves(x.costs.mean(0, keepdims=True), x.losses.mean(0, keepdims=True))
        for x in (mine, theirs)
    )
    ratio = factor * _ratio(a, b)
    return Speedup(ratio, None, None, _words(ratio))


def over_seeds(logs: Mapping[Pair, float]) -> Speedup:
    """The geometric mean of ratios over seeds, from their logarithms; -inf: not reached.

    The interval is Student's on the logarithms, and regards seeds that runs share; with fewer than
    LEAST_SEEDS seeds, it would be wide and rest on a normal distribution that nobody has seen.
    """
    values = list(logs.values())
    lost = [x for x in values if x == -math.inf]
    if lost:
        return Speedup(0.0, None, None, _lost(values, len(lost)))
    ratio = math.exp(fmean(values))
    if len(values) < 2 or not math.isfinite(ratio):
        return Speedup(ratio, None, None, _words(ratio))
    seeds = min(table(logs).shape) if is_crossed(logs) else len(values)
    test = mean_test(logs) if seeds >= LEAST_SEEDS else None
    if test is None:
        low, high = math.exp(min(values)), math.exp(max(values))
        return Speedup(ratio, low, high, _words(ratio), "range of seeds")
    ratio, low, high = map(math.exp, test[:3])
    return Speedup(ratio, low, high, _words(ratio), "95 %")


def shown(speedup: Speedup | None) -> str:
    """Ratio and interval in a table: [95 %] or (range of seeds)."""
    if speedup is None:
        return "not known"
    if speedup.low is None or speedup.high is None:
        return speedup.words
    ends = f"{speedup.low:.2f}, {speedup.high:.2f}"
    kind = f"[{ends}]" if speedup.interval == "95 %" else f"({ends.replace(', ', ' to ')})"
    return f"{speedup.words} {kind}"


def _lost(values: Sequence[float], lost: int) -> str:
    """ "not reached", and by how many seeds if others reach it."""
    if lost == len(values):
        return "not reached"
    reached = sorted(math.exp(x) for x in values if x > -math.inf)
    spread = (
        f"{reached[0]:.2f} x" if len(reached) == 1 else f"{reached[0]:.2f} to {reached[-1]:.2f} x"
    )
    return f"not reached by {lost} of {len(values)} seeds, {spread} by the others"


def _words(ratio: float) -> str:
    """ "1.20 x" or "not reached"."""
    if math.isnan(ratio):
        return "not defined"
    return f"{ratio:.2f} x" if ratio > 0 else "not reached"


def _ratio(mine: _Curves, theirs: _Curves) -> float:
    """Baseline's cost of its final loss over the arm's, of one curve each; 0 if the arm misses."""
    target = theirs.losses[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = crossing(*theirs, target) / crossing(*mine, target)
    return float(ratio[0])


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
