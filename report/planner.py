"""How many seeds? What a number of seeds can show, from the noise of the runs at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from record.power import pooled_std, seeds_needed, smallest_shown
from report.verdict import Comparison, Values

SEEDS = (2, 3, 4, 5, 8, 10, 20)
FACTORS = (0.5, 1, 2, 4)  # of sigma: the differences planned for, if nobody asks for others


@dataclass(frozen=True)
class Planner:
    """Smallest differences that n seeds show with 80 % power, in the metric's unit.

    Planned for the rule that decides, in a contest of `arms` arms, one of which differs.
    """

    arms: int
    sigma: float | None  # pooled over arms
    sigma_paired: float | None  # of differences, pooled over arms
    detectable: dict[int, tuple[float | None, float | None]]  # n: (unpaired, paired)
    needed: dict[float, tuple[int | None, int | None]]  # difference: n per arm


def plan(
    values: Mapping[str, Values], comparisons: Mapping[str, Comparison], wanted: Sequence[float]
) -> Planner:
    """What SEEDS can show, and the seeds for each wanted difference.

    values: of all arms; infinite ones do not count. wanted: differences in the unit of the values;
    none takes FACTORS of the noise.
    """
    sigma = pooled_std([[x for x in v.values() if math.isfinite(x)] for v in values.values()])
    tests = [c for c in comparisons.values() if c.method and c.method != "Welch"]
    between = pooled_std([list(c.differences.values()) for c in tests])
    scale = sigma or between
    sizes = wanted or ([_two_digits(scale * factor) for factor in FACTORS] if scale else [])
    arms = 1 + max(1, sum(c.tested for c in comparisons.values()))
    return Planner(
        arms=arms,
        sigma=sigma,
        sigma_paired=between,
        detectable={
            n: (
                smallest_shown(sigma, n, arms=arms, paired=False),
                smallest_shown(between, n, arms=arms, paired=True),
            )
            for n in SEEDS
        },
        needed={
            d: (
                seeds_needed(sigma, d, arms=arms, paired=False),
                seeds_needed(between, d, arms=arms, paired=True),
            )
            for d in sizes
        },
    )


def _two_digits(x: float) -> float:
    return float(f"{x:.1e}")
