"""The leaderboard: one row of numbers per arm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from record.contest import TunedArm
from report.crossed import is_crossed, mean_test
from report.run import Run
from report.seconds import is_time
from report.speedups import Speedup, speedups, to_target
from report.statistics import t_interval
from report.study import Study
from report.verdict import Comparison, Values

COSTS = {  # number of the summary: title of its column
    "train_seconds": "seconds",
    "step_ms_median": "ms per update",
    "step_ms_p99": "p99",
    "optimizer_ms_median": "optimizer ms",
    "data_wait_ms_median": "data ms",
    "tokens_per_second": "tokens/s",
    "mfu": "MFU",
    "peak_memory_gib": "GiB",
    "optimizer_state_bytes_per_parameter": "state bytes per parameter",
}
SCORES = {
    "best_val_loss": "best val loss",
    "loss_noise": "loss noise",
    "spike_score": "spikes, %",
    "stability_score": "stability",
    "converged_step": "converged step",
    "avg_loss": "average loss",
    "avg_grad_norm": "average gradient norm",
}


@dataclass(frozen=True)
class Spread:
    """Median and extremes over the runs of an arm that have the number; inf where none has.

    missed: runs that have none, as they never reached what it is the cost of.
    """

    median: float
    low: float
    high: float
    runs: int = 1
    missed: int = 0


@dataclass(frozen=True)
class Row:
    """One arm of the leaderboard. mean: +inf if a run diverged and is not censored."""

    arm: str
    is_baseline: bool
    planned: int  # runs
    values: Values
    n: int  # of values
    mean: float | None
    std: float | None
    low: float | None  # 95 % t interval of the mean
    high: float | None
    diverged: int  # runs
    costs: dict[str, Spread]
    scores: dict[str, Spread]
    to_target: dict[str, Spread]
    speedups: dict[str, Speedup]
    comparison: Comparison | None
    ranks: tuple[int, int] | None  # 95 % that all arms' ranks lie in theirs; None: not ranked
    tuned: TunedArm | None
    mean_lr_factor: float | None
    last_lr_factor: float | None


def row(
    study: Study,
    arm: str,
    values: Values,
    comparison: Comparison | None,
    target: float | None,
    ranks: tuple[int, int] | None = None,
) -> Row:
    """One arm's numbers. target: val loss in nats whose cost is measured. ranks: best, worst."""
    runs, base, numbers = study.of(arm), study.baseline_of(arm), list(values.values())
    finite = bool(numbers) and all(map(math.isfinite, numbers))
    interval = (
        (mean_test(values) if is_crossed(values) else t_interval(numbers)) if finite else None
    )
    comparable = base and comparison and comparison.call != "refused"
    return Row(
        arm=arm,
        is_baseline=arm == base,
        planned=len(runs),
        values=values,
        n=len(numbers),
        mean=float(np.mean(numbers)) if numbers else None,
        std=float(np.std(numbers, ddof=1)) if finite and len(numbers) > 1 else None,
        low=interval and interval.low,
        high=interval and interval.high,
        diverged=sum(run.diverged for run in runs),
        costs=_spreads(runs, COSTS),
        scores=_spreads(runs, SCORES),
        to_target=_costs_of_target(runs, target),
        speedups=speedups(study, arm, base) if base and comparable else {},
        comparison=comparison,
        ranks=ranks,
        tuned=study.tuning.arms.get(study.without_length(arm)) if study.tuning else None,
        mean_lr_factor=_median(runs, "mean_lr_factor"),
        last_lr_factor=_median(runs, "last_lr_factor"),
    )


def _spread(numbers: Sequence[float]) -> Spread:
    """Median and extremes of at least one number; infinite ones are missed."""
    reached = [x for x in numbers if math.isfinite(x)] or [math.inf]
    missed = sum(map(math.isinf, numbers))
    return Spread(float(np.median(reached)), min(reached), max(reached), len(numbers), missed)


def _spreads(runs: Sequence[Run], names: Iterable[str]) -> dict[str, Spread]:
    """Spread of each number of the summary over the runs where it is finite.

    A time counts only for runs that had their machine for themselves.
    """
    found = {}
    for name in names:
        fair = [run for run in runs if not (run.shared and is_time(name))]
        numbers = [float(v) for run in fair if (v := run.summary.get(name)) is not None]
        if finite := [x for x in numbers if math.isfinite(x)]:
            found[name] = _spread(finite)
    return found


def _median(runs: Sequence[Run], name: str) -> float | None:
    """Median of a number of the summary; None if no run has it."""
    spread = _spreads(runs, [name]).get(name)
    return spread.median if spread else None


def _costs_of_target(runs: Sequence[Run], target: float | None) -> dict[str, Spread]:
    """Costs of the target over the runs that have ended; a miss is infinite."""
    ended = [run for run in runs if run.done and len(run.val["step"])]
    if target is None or not ended:
        return {}
    each = [(run, to_target(run, target)) for run in ended]
    found: dict[str, Spread] = {}
    for name in each[0][1]:
        seconds = name == "seconds_to_target"
        numbers = [costs[name] for run, costs in each if not (seconds and run.shared)]
        found |= {name: _spread(numbers)} if numbers else {}
    return found
