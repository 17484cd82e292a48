"""Which runs are one arm, where no plan says so? Those with equal settings, whatever their seeds.

An arm of loose runs is named after the W&B job type if it has one, else after the optimizer, with
the schedule if that differs; then come the keys in which runs of that name differ: `adamw lr=0.01`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from configs.loading import flat
from configs.schema import OUTSIDE, Config
from report.run import Run, default_arm, optimizer_words, value_at

# Keys that change no result: runs that differ in these alone are one arm. Numbers of updates are
# told apart by study.by_length, and folders of tokens by what lies in them.
SAME_RESULT = (
    "seed",
    "data_seed",
    "train.total_steps",
    "train.device",
    *(key for key in OUTSIDE if key != "data.dir"),
)
FIRST = ("optimizer.", "schedule.")  # in a name; the other keys follow in alphabetical order

Settings = dict[str, Any]  # dotted key: plain value


def with_arms(runs: Sequence[Run]) -> list[Run]:
    """The runs, each with the name of its arm; those of a plan keep the name that they have.

    Tuning runs and trunks of loose arms keep theirs too, since an arm has many settings there.
    """
    texts, schedules = _texts(runs), {_schedule(run) for run in runs if _is_unnamed(run)}
    named = [_head(run, len(schedules) > 1) for run in runs]
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(named):
        if run.role == "report":
            groups.setdefault(run.arm, []).append(i)
    for indices in groups.values():
        settings = [_settings(named[i], texts) for i in indices]
        planned = [s for i, s in zip(indices, settings, strict=True) if named[i].planned]
        keys = _differing(settings)
        for i, own in zip(indices, settings, strict=True):
            if keys and not named[i].planned and own not in planned:
                words = [f"{short}={_word(_at(own, key))}" for key, short in _short(keys).items()]
                named[i] = replace(named[i], arm=" ".join([named[i].arm, *words]))
    return named


def unequal(runs: Sequence[Run]) -> list[str]:
    """Keys in which reporting runs of one arm differ that began; seeds, logging and such aside."""
    begun = [run for run in runs if run.role == "report" and run.config]
    arms = [[run for run in begun if run.arm == arm] for arm in {run.arm for run in begun}]
    texts = _texts(begun)
    return sorted({key for arm in arms for key in _differing([_settings(r, texts) for r in arm])})


def _is_unnamed(run: Run) -> bool:
    """Whether nobody has named its arm."""
    return not run.planned and run.arm == default_arm(run.config)


def _schedule(run: Run) -> Any:
    return value_at(run.config, "schedule.name")


def _head(run: Run, with_schedule: bool) -> Run:
    """The run; where nobody has named its arm, the schedule is in the name only if they differ."""
    if with_schedule or not _is_unnamed(run):
        return run
    return replace(run, arm=optimizer_words(run.config))


def _texts(runs: Iterable[Run]) -> dict[str, str]:
    """By data.dir the first one with the same tokens, at another place.

    Records of earlier versions have no hash of all tokens, but one of the first batches.
    """
    first: dict[str, str] = {}  # by hash
    same: dict[str, str] = {}
    for run in runs:
        folder = value_at(run.config, "data.dir")
        tokens = run.hashes.get("data") or run.hashes.get("batches")
        if folder and tokens:
            known = first.setdefault(tokens, folder)
            same.setdefault(folder, same.get(known, known))
    return same


def _settings(run: Run, texts: Mapping[str, str]) -> Settings:
    """What can change its result, in full."""
    given = {**_defaults(), **flat(run.config)} if run.config else {}
    if folder := given.get("data.dir"):
        given["data.dir"] = texts.get(folder, folder)
    return {
        key: value
        for key, value in given.items()
        if value is not None and not key.startswith(SAME_RESULT)
    }


def _differing(settings: Sequence[Settings]) -> list[str]:
    """Keys that do not have one value in all, in the order of names."""
    keys = sorted({key for each in settings for key in each})
    keys = [key for key in keys if any(_at(s, key) != _at(settings[0], key) for s in settings)]
    return sorted(keys, key=lambda key: not key.startswith(FIRST))


def _at(settings: Settings, key: str) -> Any:
    """The value of a key; a role has the ratio 1 and the run's schedule, unless it has its own."""
    if key not in settings and ".roles." in key:
        table, _, role, name = key.split(".", 3)
        if name == "lr_ratio":
            return 1.0
        if table == "schedule" and f"{table}.roles.{role}.name" not in settings:
            return settings.get(f"{table}.{name}")
    return settings.get(key)


def _short(keys: Sequence[str]) -> dict[str, str]:
    """What a name calls each key: its last part, after the role if it is of one.

    Where two would be the same it is all of the key.
    """
    short = {}
    for key in keys:
        named, of_role = key.removesuffix(".name"), key.partition(".roles.")[2]
        short[key] = of_role.removesuffix(".name") or named.rpartition(".")[2]
    uses = Counter(short.values())
    return {key: name if uses[name] == 1 else key for key, name in short.items()}


def _word(value: Any) -> str:
    """A value in a name."""
    if isinstance(value, list | tuple):
        return ",".join(map(_word, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


@functools.cache
def _defaults() -> Settings:
    """Values of the keys that a configuration of an older version may lack."""
    found: Settings = {}
    for table, field in Config.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            for key, own in inner.model_fields.items():
                if not own.is_required():
                    found[f"{table}.{key}"] = own.get_default()
    return found
