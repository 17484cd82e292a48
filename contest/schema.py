"""The tables of a contest file, typed; contest/file.py reads them and checks them together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from configs.validation import Strict
from record.contest import SMALLEST


class Range(Strict):
    """Where a hyperparameter is searched; two integers give integers."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low = {self.low} and high = {self.high} span no range")
        return self


class Search(Strict):
    """[contest.search]: optuna in place of a grid."""

    sampler: Literal["tpe", "random", "qmc", "cmaes"] = "tpe"
    trials: int = Field(gt=0, description="per arm")
    seed: int = Field(0, ge=0, lt=2**31, description="of the sampler")
    ranges: dict[str, Range] = Field(min_length=1)


class Branches(Strict):
    """[contest.branches]: every arm at several lengths; some arms branch from one trunk."""

    arms: tuple[str, ...] = Field(min_length=1, description="whose runs branch from a trunk")
    lengths: tuple[int, ...] = Field(min_length=1, description="updates")


class Table(Strict):
    """[contest]."""

    name: str
    base: tuple[str, ...] = Field(min_length=1)
    baseline: str
    seeds: tuple[int, ...] = Field(min_length=1)
    data_seeds: tuple[int, ...] = ()
    tuning_seeds: tuple[int, ...] = ()
    tie_seeds: tuple[int, ...] = ()  # more tuning seeds, for settings that are about as good
    extend: int = Field(1, ge=0, description="rounds of further trials while a best is at an edge")
    target: float | None = None
    smallest: float = Field(SMALLEST, ge=0, allow_inf_nan=False)  # nats; 0: nothing is equivalent
    text: Literal["fixed", "random"] = "fixed"  # random: verdicts are for other texts too
    settings: dict[str, Any] = Field({})
    tune: dict[str, tuple[Any, ...]] = Field({})
    search: Search | None = None
    branches: Branches | None = None


class ArmTable(Strict):
    """The keys of [[arm]] that are not flags of train_gpt2.py."""

    name: str = Field(min_length=1)
    configs: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    against: str | None = None
    tune: dict[str, Any] = Field({})
