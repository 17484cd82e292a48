"""The factors of a run: what build_schedule gives, and what optimizers look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from configs.validation import ConfigError, first_line


@dataclass(frozen=True)
class Schedule:
    """The factors of all updates of a run, evaluated once; a call with a step looks one up.

    `factors` has total_steps + 1 entries. The last one is the limit at the end of the run, and the
    factor of every step past it. Steps below 0 give the first. `roles` are the schedules of roles
    of parameters that have their own; the numbers below are of the factors of all others.
    """

    name: str
    factors: tuple[float, ...]
    roles: Mapping[str, Schedule] = field(default_factory=dict)

    def __call__(self, step: int, role: str | None = None) -> float:
        """The factor of the update `step`, counted from 0, for the parameters of `role`."""
        return self.of(role).factors[min(max(step, 0), self.total_steps)]

    def of(self, role: str | None) -> Schedule:
        """The schedule of the parameters of `role`."""
        return self.roles.get(role or "", self)

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

    def facts(self) -> dict[str, float]:
        """For the summary of a run: of hidden matrices, as train/lr is, and of roles of their own.

        The latter have their role in the name: mean_lr_factor_embedding.
        """
        named = {"": self.of("hidden")}
        named |= {f"_{role}": own for role, own in self.roles.items() if role != "hidden"}
        if "hidden" in self.roles:
            named["_others"] = self
        mean = {f"mean_lr_factor{end}": own.mean_factor for end, own in named.items()}
        return mean | {f"last_lr_factor{end}": own.last_factor for end, own in named.items()}


def evaluated(
    name: str, function: Callable[..., float], total_steps: int, values: Mapping[str, Any]
) -> Schedule:
    """The schedule `name`: `function` with the hyperparameters `values` at each of its steps.

    Raises:
        ConfigError: it cannot be evaluated, or gives a factor outside [0, 1]; one line.
    """
    try:
        steps = range(total_steps + 1)
        factors = tuple(float(function(step, total_steps, **values)) for step in steps)
    except ConfigError:  # values that do not fit each other, or the run
        raise
    except Exception as error:  # a power too large for a float, or a mistake in others' code
        raise ConfigError(
            f"schedule '{name}' cannot be evaluated with {dict(values)}: {first_line(error)}"
        ) from error
    for step, factor in enumerate(factors):
        if not (math.isfinite(factor) and 0 <= factor <= 1):
            raise ConfigError(
                f"schedule '{name}' gives factor {factor} at step {step}; it must lie in [0, 1]"
            )
    return Schedule(name, factors)
