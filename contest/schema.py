"""The tables of a contest file, typed, each by itself; contest/file.py checks them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, model_validator

from configs import ConfigError
from configs.validation import Strict, validate
from record.contest import SMALLEST

M = TypeVar("M", bound=BaseModel)


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
    target: float | None = Field(None, gt=0)  # validation loss, nats per token
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


def parse_table(model: type[M], table: Mapping[str, Any], prefix: str) -> M:
    """`model` built from a table of a contest file; `prefix` names the table in messages.

    Raises:
        ConfigError: a key or value is wrong.
    """
    try:
        return validate(model, table, prefix)
    except ConfigError as error:  # for a missing key it has the trainer's remedy
        raise ConfigError(str(error).partition("; give it in")[0]) from None


def parse_range(value: Any, where: str) -> Range:
    """A range to search; `where` names it in messages.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, Mapping):
        example = "{low = 1e-4, high = 1e-2, log = true}"
        raise ConfigError(f"{where} = {value!r} should be a range such as {example}")
    return parse_table(Range, value, where)


def parse_values(value: Any, where: str) -> tuple[Any, ...]:
    """The values of a grid; `where` names them in messages.

    Raises:
        ConfigError: they are no list, or none is given.
    """
    if not isinstance(value, tuple) or not value:
        raise ConfigError(f"{where} = {value!r} should be a list of values")
    return value
