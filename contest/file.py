"""A contest file: arms that are trained on the same model, data, tokens and seeds.

    [contest]
    name = "schedules"                 # of the folder in --out
    base = ["configs/gpt2_124m.toml"]  # files of train_gpt2.py, merged left to right
    baseline = "cosine"                # the arm that the others are compared with
    seeds = [1, 2, 3]                  # reporting: each arm runs once with each
    tuning_seeds = [101]               # tuning: disjoint from them
    [contest.settings]                 # flags of train_gpt2.py for all arms
    "train.total_steps" = 5000
    [contest.tune]                     # or [contest.search]
    "optimizer.lr" = [3e-4, 6e-4, 1.2e-3]
    [[arm]]
    name = "cosine"
    "schedule.name" = "cosine"         # flags of this arm
    [[arm]]
    name = "muon"
    configs = ["configs/optimizer/muon.toml"]  # overlays of this arm, after the base
    tune = {"optimizer.lr" = [1e-3, 2e-3, 4e-3]}

docs/contests.md says what every key means. A mistake is a ConfigError of one line.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import ConfigError
from configs.loading import flat
from configs.validation import nearest
from contest.schema import ArmTable, Branches, Range, Table, parse_range, parse_table, parse_values

Setting = dict[str, Any]  # dotted key -> plain value
Seeds = tuple[int, int]  # of initial weights, of the order of data

RESERVED = ("seed", "data_seed", "log.dir", "log.group", "log.job_type")  # set by the planner


@dataclass(frozen=True)
class Arm:
    """One contestant: files and flags over the base, and what is tuned."""

    name: str
    configs: tuple[str, ...]
    overrides: Setting
    seeds: tuple[int, ...]
    grid: dict[str, tuple[Any, ...]]  # {} with a search, or without tuning
    ranges: dict[str, Range]  # {} without a search
    against: str | None  # the arm that it is compared with; None: the contest's baseline

    @property
    def numbers(self) -> list[str]:
        """Tuned keys that can be extended: ranges, and lists of at least two numbers."""
        lists = [key for key, values in self.grid.items() if _are_numbers(values)]
        return lists or [*self.ranges]

    def settings(self) -> list[Setting]:
        """All trials of the grid, in its order."""
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


@dataclass(frozen=True)
class Contest:
    """A contest file; checked, except for the configurations that it names."""

    table: Table
    arms: tuple[Arm, ...]
    text: str  # of the file
    notices: tuple[str, ...]  # what the user should know, in words

    @property
    def name(self) -> str:
        """The name of the contest, its folder and its group of runs."""
        return self.table.name

    @property
    def tuned(self) -> bool:
        """Whether anything is tuned."""
        return bool(self.table.tune or self.table.search)

    @property
    def trials(self) -> int:
        """Trials per arm, equal for all; 0 without tuning."""
        if self.table.search:
            return self.table.search.trials
        return math.prod(map(len, self.arms[0].grid.values())) if self.tuned else 0

    @property
    def extend(self) -> int:
        """Rounds of further trials at most; 0 if an arm can have none, since trials stay equal."""
        return self.table.extend if self.tuned and all(arm.numbers for arm in self.arms) else 0

    def seeds(self, arm: Arm) -> list[Seeds]:
        """The seeds of the arm's reporting runs, in their order."""
        return [(seed, other) for seed in arm.seeds for other in self.table.data_seeds or (seed,)]

    def arguments(
        self, arm: Arm, seeds: Seeds, *settings: Mapping[str, Any], without: str | None = None
    ) -> list[str]:
        """Arguments of train_gpt2.py for one run; later `settings` win over earlier ones.

        without: drop the keys with this beginning, except those of the last setting.
        """
        flags: Setting = {**self.table.settings, **arm.overrides}
        for setting in settings:
            if without and setting is settings[-1]:
                flags = {k: v for k, v in flags.items() if not k.startswith(without)}
            flags |= setting
        flags |= {"seed": seeds[0], "data_seed": seeds[1]}
        words = [word for key, value in flags.items() for word in (f"--{key}", flag(value))]
        return [*self.table.base, *arm.configs, *words]


def flag(value: Any) -> str:
    """`value` as configs.load reads it back from a command line."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return value
    return json.dumps(value)  # "1e-3", quoted


def read(path: Path) -> Contest:
    """The contest in a TOML file.

    Raises:
        ConfigError: the file cannot be read, or has a mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        known = [str(p) for p in Path("configs/contest").glob("*.toml")]
        hint = nearest(str(path), known) if known else "give the path of a contest file"
        raise ConfigError(f"cannot read {path}: {error.strerror}; {hint}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    try:
        return parse(table, text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse(table: Mapping[str, Any], text: str) -> Contest:
    """The contest in a TOML document.

    Raises:
        ConfigError: it has a mistake.
    """
    for key in table:
        if key not in ("contest", "arm"):
            raise ConfigError(f"unknown table '{key}'; {nearest(key, ['contest', 'arm'])}")
    if not isinstance(table.get("contest"), dict):
        raise ConfigError("no [contest] table; it names base, baseline and seeds")
    search = table["contest"].get("search")
    if isinstance(search, Mapping) and isinstance(search.get("ranges"), Mapping):
        for key, value in search["ranges"].items():  # checked here, since the error names the key
            parse_range(value, f"contest.search.ranges.{key}")
    head = parse_table(Table, {**table["contest"], **_flat_settings(table["contest"])}, "contest")
    rows = table.get("arm")
    if not isinstance(rows, list) or not rows:
        raise ConfigError("no [[arm]]; a contest has at least two: the baseline and a rival")
    _check_head(head)
    arms = tuple(_arm(row, number, head) for number, row in enumerate(rows, 1))
    _check_arms(head, arms)
    return Contest(head, arms, text, tuple(_notices(head, arms)))


def _flat_settings(head: Mapping[str, Any]) -> dict[str, Any]:
    settings = head.get("settings", {})
    return {"settings": flat(settings)} if isinstance(settings, dict) else {}


def _arm(row: Mapping[str, Any], number: int, head: Table) -> Arm:
    """One [[arm]]; `number` stands for its name in messages if it has none."""
    own = {key: value for key, value in row.items() if key in ArmTable.model_fields}
    table = parse_table(ArmTable, own, f"arm {row.get('name', number)}")
    arm = f"arm '{table.name}'"
    overrides = flat({key: value for key, value in row.items() if key not in own})
    for key in overrides:
        if "." not in key and key not in RESERVED:
            hint = nearest(key, [*ArmTable.model_fields, "optimizer.name", "schedule.name"])
            remedy = f"{hint}; flags of train_gpt2.py are written with their dots"
            raise ConfigError(f"{arm}: unknown key '{key}'; {remedy}")
    _check_reserved(overrides, arm)
    if table.tune and not (head.tune or head.search):
        problem = f"{arm} has a tune table, but the contest tunes nothing"
        raise ConfigError(f"{problem}; give [contest.tune] or [contest.search] too")
    grid: dict[str, tuple[Any, ...]] = {}
    ranges: dict[str, Range] = {}
    if head.search:
        ranges = {
            key: parse_range(value, f"{arm}: tune.{key}") for key, value in table.tune.items()
        }
        ranges = ranges or head.search.ranges
    else:
        grid = {key: parse_values(value, f"{arm}: tune.{key}") for key, value in table.tune.items()}
        grid = grid or head.tune
    _check_reserved({**grid, **ranges}, f"tune table of {arm}")
    seeds = table.seeds or head.seeds
    return Arm(table.name, table.configs, overrides, seeds, grid, ranges, table.against)


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether they are at least two numbers."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and len(set(values)) > 1


def _check_reserved(keys: Mapping[str, Any], where: str) -> None:
    if taken := [key for key in keys if key in RESERVED]:
        remedy = "seeds are given as `seeds` under [contest], or of one arm under its [[arm]]"
        raise ConfigError(f"{where} sets {taken[0]}, which is the planner's; {remedy}")


def _check_head(head: Table) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", head.name):
        raise ConfigError(f"contest.name = {head.name!r} names a folder; use letters, digits, .-_")
    _check_reserved(head.settings, "[contest.settings]")
    if head.tune and head.search:
        raise ConfigError("both [contest.tune] and [contest.search] are given; keep one")
    for key, values in head.tune.items():
        if not values:
            raise ConfigError(f"contest.tune.{key} is empty; give at least one value")
    if (head.tune or head.search) and not head.tuning_seeds:
        remedy = "give seeds for tuning, such as [101], that are none of contest.seeds"
        raise ConfigError(f"contest.tuning_seeds is missing; {remedy}")
    if head.tuning_seeds and not (head.tune or head.search):
        problem = "contest.tuning_seeds is given, but nothing is tuned"
        raise ConfigError(f"{problem}; give [contest.tune] or [contest.search], or remove it")
    for name in ("extend", "tie_seeds"):
        if name in head.model_fields_set and not (head.tune or head.search):
            problem = f"contest.{name} is given, but nothing is tuned"
            raise ConfigError(f"{problem}; give [contest.tune] or [contest.search], or remove it")
    for name in ("seeds", "data_seeds", "tuning_seeds", "tie_seeds"):
        _check_seeds(getattr(head, name), f"contest.{name}")
    if both := sorted({*head.tuning_seeds} & {*head.tie_seeds}):
        problem = f"seed {both[0]} is in contest.tuning_seeds and in contest.tie_seeds"
        raise ConfigError(f"{problem}; a tie is run on further seeds")
    if head.data_seeds and min(len(head.data_seeds), len(head.seeds)) < 2:
        problem = "contest.data_seeds crosses seeds of initial weights with seeds of the data"
        raise ConfigError(f"{problem}; give at least two in data_seeds and in seeds")


def _check_seeds(seeds: Sequence[int], where: str) -> None:
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{where} = {list(seeds)} has a seed twice")
    if bad := [seed for seed in seeds if not 0 <= seed < 2**31]:
        raise ConfigError(f"{where}: seed {bad[0]} should be from 0 to 2147483647")


def _check_arms(head: Table, arms: Sequence[Arm]) -> None:
    names = [arm.name for arm in arms]
    for name in names:
        if "@" in name:  # the report names an arm of several lengths arm@length
            raise ConfigError(f"arm '{name}': @ stands before a length; choose a name without it")
        if names.count(name) > 1:
            raise ConfigError(f"two arms are named '{name}'; give each its own name")
    if head.baseline not in names:
        hint = nearest(head.baseline, names)
        raise ConfigError(f"contest.baseline = '{head.baseline}' is no arm; {hint}")
    for arm in arms:
        _check_seeds(arm.seeds, f"seeds of arm '{arm.name}'")
        if len(arm.seeds) != len(head.seeds):
            problem = f"arm '{arm.name}' has {len(arm.seeds)} seeds of its own, the contest "
            raise ConfigError(f"{problem}{len(head.seeds)}; give equal numbers")
        if head.data_seeds and set(arm.seeds) != set(head.seeds):
            problem = f"arm '{arm.name}' has seeds of its own"
            raise ConfigError(f"{problem}; with contest.data_seeds all arms share contest.seeds")
        if both := sorted({*arm.seeds, *head.data_seeds} & {*head.tuning_seeds, *head.tie_seeds}):
            problem = f"seed {both[0]} is used for tuning and for reporting (arm '{arm.name}')"
            reason = "a setting looks better than it is on the seeds that it was tuned on"
            raise ConfigError(
                f"{problem}; {reason}: make contest.tuning_seeds and contest.tie_seeds disjoint"
            )
    _check_opponents(head.baseline, {arm.name: arm.against for arm in arms})
    if head.tune:
        counts = {arm.name: math.prod(map(len, arm.grid.values())) for arm in arms}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            problem = f"the arms have unequal numbers of trials: {listed}"
            raise ConfigError(f"{problem}; a fair contest tunes every arm with the same number")
    if head.branches:
        _check_branches(head.branches, names)


def _check_opponents(baseline: str, against: Mapping[str, str | None]) -> None:
    """Whether every arm leads to the baseline, directly or by way of others."""
    if against[baseline]:
        problem = f"arm '{baseline}' is contest.baseline, which is compared with no other arm"
        raise ConfigError(f"{problem}; remove its `against`")
    for name, other in against.items():
        if other and other not in against:
            hint = nearest(other, [*against])
            raise ConfigError(f"arm '{name}': against = '{other}' is no arm; {hint}")
    for name in against:
        path = [name]
        while (other := against[path[-1]]) and other not in path:
            path.append(other)
        if other == name:
            circle = " against ".join([*path, name])
            remedy = f"one of them should be compared with '{baseline}' or another arm"
            raise ConfigError(f"{circle}: no arm can be compared with itself; {remedy}")


def _check_branches(branches: Branches, names: Sequence[str]) -> None:
    for name in branches.arms:
        if name not in names:
            raise ConfigError(f"contest.branches.arms: '{name}' is no arm; {nearest(name, names)}")
    lengths = branches.lengths
    if len(set(lengths)) < len(lengths) or min(lengths) < 1:
        given = f"contest.branches.lengths = {list(lengths)}"
        raise ConfigError(f"{given} should be different numbers of updates")


def _notices(head: Table, arms: Sequence[Arm]) -> list[str]:
    notices = []
    if len(head.seeds) == 1:
        reason = "a difference between two runs cannot be told from noise"
        notices.append(f"one seed gives no verdict, since {reason}; give at least 3 seeds")
    if len(arms) == 1:
        notices.append("one arm: there is nothing to compare it with")
    fixed = [arm.name for arm in arms if not arm.numbers]
    asked = len(fixed) < len(arms) or "extend" in head.model_fields_set
    if (head.tune or head.search) and head.extend and fixed and asked:
        reason = f"{', '.join(fixed)} tunes no list of numbers, and trials stay equal"
        notices.append(f"no grid is extended at its edge, since {reason}")
    own = [arm.name for arm in arms if set(arm.seeds) != set(head.seeds)]
    if own:
        notices.append(f"seeds of their own: {', '.join(own)}; these arms are compared unpaired")
    return notices
