"""Strict validation of plain values, with one-line errors that name the key and the remedy."""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)


class ConfigError(ValueError):
    """A mistake in the configuration; the message is one line for the user."""


class Strict(BaseModel):
    """A frozen table without unknown keys and non-finite numbers.

    An int becomes a float, a list a tuple; nothing else is converted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def positive(text: str) -> float:
    """A finite number above 0, for an option of a command.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return number


def first_line(error: Exception) -> str:
    """Type and first line of the message of an error of another's code."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def nearest(word: str, valid: Iterable[str]) -> str:
    """Hint for a misspelt `word`: the nearest valid spelling, if any, and all valid ones."""
    valid = sorted(valid)
    near = guess(word, valid)
    return f"{near}{' ' if near else ''}valid: {', '.join(valid)}"


def guess(word: str, valid: Iterable[str]) -> str:
    """A question such as "did you mean 'adamw'?", or "" if no valid spelling is near.

    Capitals, - and _ count for nothing here. Yet a name has one spelling, since folders, presets
    and arms are named by it.
    """
    spelt = {_bare(name): name for name in sorted(valid, reverse=True)}
    near = difflib.get_close_matches(_bare(word), spelt, n=1, cutoff=0.5)
    return f"did you mean '{spelt[near[0]]}'?" if near else ""


def _bare(word: str) -> str:
    return re.sub(r"[^a-z0-9./]", "", word.casefold())


def validate(
    model: type[M], table: Mapping[str, Any], prefix: str = "", beside: Sequence[str] = ()
) -> M:
    """`model` built from `table`. beside: valid keys of the same table that are not in the model.

    The word "none" stands for None where the type has None, since TOML has no such value.

    Raises:
        ConfigError: a key or value is wrong; the message names the first such key as `prefix.key`.
    """
    try:
        return model.model_validate(_converted(model, table))
    except ValidationError as error:
        raise ConfigError(_describe(error, model, table, prefix, beside)) from None


def _converted(hint: Any, value: Any) -> Any:
    """`value` with tuples for lists (ours are fixed), and None for "none" where `hint` has it."""
    if isinstance(value, Mapping):
        return {key: _converted(_inside(hint, key), item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_converted(None, item) for item in value)
    if isinstance(value, str) and value.lower() == "none":
        branches = _branches(hint)
        return None if type(None) in branches and value not in branches else value
    return value


def _inside(hint: Any, key: str) -> Any:
    """The type of `key` in a table of type `hint`; None if it has none."""
    if get_origin(hint) is dict:
        return get_args(hint)[1]
    field = hint.model_fields.get(key) if _is_model(hint) else None
    return field.annotation if field else None


def _branches(hint: Any) -> list[Any]:
    """The types of a union and the words of a Literal, at any depth."""
    return [hint, *(branch for part in get_args(hint) for branch in _branches(part))]


def _is_model(hint: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _describe(
    error: ValidationError,
    model: type[BaseModel],
    table: Mapping[str, Any],
    prefix: str,
    beside: Sequence[str],
) -> str:
    errors = error.errors(include_url=False)
    keys, owner = _keys(model, errors[0]["loc"])
    key = ".".join(filter(None, [prefix, *keys]))
    if errors[0]["type"] == "extra_forbidden":
        valid = [*owner.model_fields, *(beside if owner is model else ())]
        return f"unknown key '{key}'; {nearest(keys[-1], valid)}"
    value: Any = table
    for part in keys:
        if part not in value:
            return f"'{key}' is missing; give it in a TOML file or as --{key} VALUE"
        value = value[part]
    # A union gives one message per branch; together they say what is valid.
    field = owner.model_fields.get(keys[-1]) if keys else None
    default = field.default if field else None
    said = [_said(item, default) for item in errors if _keys(model, item["loc"])[0] == keys]
    what = " or ".join(dict.fromkeys(said))
    return f"[{key}] {what}" if isinstance(value, Mapping) else f"{key} = {value!r}: {what}"


def _said(error: ErrorDetails, default: Any) -> str:
    """What pydantic says, with an example where its words are not those of a flag or a file."""
    kind, given = error["type"], error["input"]
    if kind in ("tuple_type", "too_long", "missing"):
        if not isinstance(default, tuple):
            return "should be a list, such as 1,2"
        words = str(default).replace("(", "[").replace(")", "]")
        flag = f"{words[1:-1].replace(' ', '')} or " if "[" not in words[1:] else ""
        return f"should be a list, such as {flag}{words}"
    if kind.startswith("int_"):
        whole = isinstance(given, float) and given.is_integer()
        return f"should be a whole number, such as {int(given) if whole else 1000}"
    if kind.startswith("bool_"):
        return "should be true or false"
    return error["msg"].removeprefix("Input ").removeprefix("Value error, ")


def _keys(model: type[BaseModel], location: tuple[Any, ...]) -> tuple[list[str], type[BaseModel]]:
    """The keys in pydantic's location, and the table that holds the last of them.

    The rest of the location are branches of a union, or items of a list.
    """
    keys: list[str] = []
    owner, current = model, model
    for part in location:
        if not _is_model(current) and get_origin(current) is not dict:
            break
        owner = current if _is_model(current) else owner
        keys.append(str(part))
        current = _inside(current, str(part))
    return keys, owner
