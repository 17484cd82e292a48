"""The leaderboard: one row of numbers per arm, and one sentence for the reader in a hurry."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from record.contest import TunedArm
from report.run import Run
from report.speedups import Speedup, speedups, to_target
from report.statistics import t_interval
from report.study import Study, without_length
from report.verdict import Comparison, Values

COSTS = (
    "train_seconds",
    "step_ms_median",
    "step_ms_p99",
    "optimizer_ms_median",
    "data_wait_ms_median",
    "tokens_per_second",
    "mfu",
    "peak_memory_gib",
    "optimizer_state_bytes_per_parameter",
)
SCORES = (
    "best_val_loss",
    "avg_loss",
    "avg_grad_norm",
    "stability_score",
    "spike_score",
    "loss_noise",
    "converged_step",
)
ENDINGS = {  # call: how the headline says it of one arm, of several
    "better": ("is better", "are better"),
    "worse": ("is worse", "are worse"),
    "no evidence": ("shows no evidence of a difference", "show no evidence of a difference"),
    "diverged": ("diverged", "diverged"),
    "no verdict": ("has no verdict yet", "have no verdict yet"),
    "refused": ("cannot be compared", "cannot be compared"),
}
SHOWN_ARMS = 6  # in one part of the headline; more are counted


@dataclass(frozen=True)
class Spread:
    """Median and extremes over the runs of an arm."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One arm of the leaderboard. mean: +inf if a run diverged and is not censored."""

    arm: str
    is_baseline: bool
    planned: int  # runs
    statuses: dict[str, int]  # runs of each status
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
    tuned: TunedArm | None
    mean_lr_factor: float | None
    last_lr_factor: float | None


def row(
    study: Study, arm: str, values: Values, comparison: Comparison | None, target: float | None
) -> Row:
    """One arm's numbers. target: val loss in nats whose cost is measured."""
    runs, base, numbers = study.of(arm), study.baseline_of(arm), list(values.values())
    finite = bool(numbers) and all(map(math.isfinite, numbers))
    interval = t_interval(numbers) if finite else None
    comparable = base and comparison and comparison.call != "refused"
    return Row(
        arm=arm,
        is_baseline=arm == base,
        planned=len(runs),
        statuses=dict(Counter(run.status for run in runs)),
        values=values,
        n=len(numbers),
        mean=_mean(numbers),
        std=float(np.std(numbers, ddof=1)) if finite and len(numbers) > 1 else None,
        low=interval and interval.low,
        high=interval and interval.high,
        diverged=sum(run.diverged for run in runs),
        costs=_spreads(runs, COSTS),
        scores=_spreads(runs, SCORES),
        to_target=_costs_of_target(runs, target),
        speedups=speedups(study, arm, base) if base and comparable else {},
        comparison=comparison,
        tuned=study.tuning.arms.get(without_length(arm)) if study.tuning else None,
        mean_lr_factor=_median(runs, "mean_lr_factor"),
        last_lr_factor=_median(runs, "last_lr_factor"),
    )


def _mean(numbers: Sequence[float]) -> float | None:
    """Infinite with an infinite one; None without any."""
    if not numbers:
        return None
    return float(np.mean(numbers)) if all(map(math.isfinite, numbers)) else math.inf


def _spread(numbers: Sequence[float]) -> Spread:
    """Median and extremes of at least one number; infinities count."""
    x = sorted(numbers)
    upper = x[len(x) // 2]
    return Spread(float(np.median(x)) if math.isfinite(upper) else upper, x[0], x[-1])


def _spreads(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Spread]:
    """Spread of each number of the summary over the runs where it is finite."""
    found = {}
    for name in names:
        numbers = [float(v) for run in runs if (v := run.summary.get(name)) is not None]
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
    each = [to_target(run, target) for run in ended]
    return {name: _spread([costs[name] for costs in each]) for name in each[0]}


# ---------------------------------------------------------------------------------------- headline


def headline(baseline: str | None, rows: Sequence[Row], metric: str) -> str:
    """The verdicts in one sentence.

    rows: best mean first. metric: one of METRICS.
    """
    name = metric.replace("_", " ")
    if baseline is None or len(rows) < 2:
        only = rows[0] if rows else None
        tail = f": {name} {only.mean:.4f}, n = {only.n}" if only and only.mean is not None else ""
        return f"No verdict: one arm, nothing to compare it with{tail}."
    arms = {call: _called(rows, call) for call in ENDINGS}
    parts = [
        f"{_listed(arms[call])} {several if len(arms[call]) > 1 else one}"
        for call, (one, several) in ENDINGS.items()
        if arms[call]
    ]
    return f"Against {baseline}, by {name}: {'; '.join(parts)}."


def _called(rows: Sequence[Row], call: str) -> list[str]:
    """Arms with that call; where it is better or worse, with the difference."""
    found = []
    for r in rows:
        c = r.comparison
        if c and c.call == call:
            sized = call in ("better", "worse") and c.difference is not None
            size = f" ({c.difference:+.4f})".replace("-", "−") if sized else ""
            found.append(r.arm + size)
    return found


def _listed(names: Sequence[str]) -> str:
    """ "a, b and c"; long lists are cut and counted."""
    more = [f"{len(names) - SHOWN_ARMS} more"] if len(names) > SHOWN_ARMS else []
    shown = [*names[:SHOWN_ARMS], *more]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
