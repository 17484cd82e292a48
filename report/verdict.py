"""The verdict: what a study says of its arms, with its uncertainty; all numbers the pages print.

`judge(study)` returns a Judgement of plain dataclasses. docs/report.md says what each number means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Pair = tuple[int, int]  # (seed, data_seed)
Call = Literal["better", "worse", "no evidence", "no verdict", "refused", "diverged"]
AXES = ("tokens", "steps", "seconds", "flops")


@dataclass(frozen=True)
class Spread:
    """Median and extremes over the runs of an arm."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Speedup:
    """Baseline's cost of its final loss over the arm's cost of the same loss; above 1 is faster.

    ratio: 0.0 when the arm does not get there. low, high: 95 % of the bootstrap over seeds, None
    with one seed.
    """

    ratio: float
    low: float | None
    high: float | None
    words: str


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline. difference = arm - baseline: negative is better."""

    baseline: str
    call: Call
    words: str
    method: Literal["paired t", "Welch"] | None = None
    differences: dict[Pair, float] = field(default_factory=dict)
    difference: float | None = None
    low: float | None = None  # 95 % t interval
    high: float | None = None
    bca_low: float | None = None  # 95 % BCa bootstrap
    bca_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tuned:
    """What the tuning ledger says of an arm."""

    setting: dict[str, object]
    trials: int
    edges: tuple[str, ...]
    best_loss: float | None
    default_loss: float | None
    gap: float | None


@dataclass(frozen=True)
class Sensitivity:
    """Final val loss over learning rates: {lr: loss}, the best other setting at each rate."""

    losses: dict[float, float]
    initial: float
    score: float  # Wortsman et al. 2023
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One arm of the leaderboard. mean is +inf with a diverged run that is not censored."""

    arm: str
    is_baseline: bool
    planned: int
    statuses: dict[str, int]
    values: dict[Pair, float]
    n: int
    mean: float | None
    std: float | None
    low: float | None  # 95 % t interval of the mean
    high: float | None
    diverged: int
    costs: dict[str, Spread]
    scores: dict[str, Spread]
    to_target: dict[str, Spread]
    speedups: dict[str, Speedup]
    comparison: Comparison | None
    tuned: Tuned | None
    mean_lr_factor: float | None
    last_lr_factor: float | None


@dataclass(frozen=True)
class Planner:
    """What n seeds can show: smallest differences detectable at 80 % power, alpha 0.05."""

    sigma: float | None  # pooled over arms
    sigma_paired: float | None  # of differences, pooled over arms
    detectable: dict[int, tuple[float | None, float | None]]  # n: (unpaired, paired)
    needed: dict[float, tuple[int | None, int | None]]  # difference: n per arm


@dataclass(frozen=True)
class Judgement:
    """Everything that the pages print."""

    study: str
    metric: str
    baseline: str | None
    target: float | None
    headline: str
    rows: list[Row]
    planner: Planner
    sensitivity: dict[str, Sensitivity]
    problems: list[str]
