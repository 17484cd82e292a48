"""The factors of a run: what build_schedule gives, and what optimizers look at."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class Schedule:
    """The factors of all updates of a run, evaluated once; a call with a step looks one up.

    `factors` has total_steps + 1 entries. The last one is the limit at the end of the run, and the
    factor of every step past it. Steps below 0 give the first.
    """

    name: str
    factors: tuple[float, ...]

    def __call__(self, step: int) -> float:
        """The factor of the update `step`, counted from 0."""
        return self.factors[min(max(step, 0), self.total_steps)]

    @property
    def total_steps(self) -> int:
        """Number of updates."""
        return len(self.factors) - 1

    @property
    def mean_factor(self) -> float:
        """Mean over the updates: the area under the curve, in which schedules differ most."""
        return fmean(self.factors[:-1])

    @property
    def last_factor(self) -> float:
        """Factor of the last update."""
        return self.factors[-2]

    @property
    def peak_factor(self) -> float:
        """Largest factor of the run."""
        return max(self.factors)
