"""Strict validation of plain values, with one-line errors that name the key and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

M = TypeVar("M", bound=BaseModel)


class ConfigError(ValueError):
    """A mistake in the configuration; the message is one line for the user."""


class Strict(BaseModel):
    """A frozen table without unknown keys and non-finite numbers.

    An int becomes a float, a list a tuple; nothing else is converted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def nearest(word: str, valid: Iterable[str]) -> str:
    """Hint for a misspelt `word`: the nearest valid spelling, if any, and all valid ones."""
    valid = sorted(valid)
    near = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    guess = f"did you mean '{near[0]}'? " if near else ""
    return f"{guess}(valid: {', '.join(valid)})"


def validate(model: type[M], table: Mapping[str, Any], prefix: str = "") -> M:
    """`model` built from `table`.

    Raises:
        ConfigError: a key or value is wrong; the message names the first such key as `prefix.key`.
    """
    try:
        return model.model_validate(_tuples(table))
    except ValidationError as error:
        raise ConfigError(_describe(error, model, table, prefix)) from None


def _tuples(value: Any) -> Any:
    """TOML has only lists; ours are immutable."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _describe(
    error: ValidationError, model: type[BaseModel], table: Mapping[str, Any], prefix: str
) -> str:
    errors = error.errors(include_url=False)
    keys, owner = _keys(model, errors[0]["loc"])
    key = ".".join(filter(None, [prefix, *keys]))
    if errors[0]["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {nearest(keys[-1], owner.model_fields)}"
    value: Any = table
    for part in keys:
        if part not in value:
            return f"'{key}' is missing; give it in a TOML file or as --{key} VALUE"
        value = value[part]
    # A union gives one message per branch; together they say what is valid.
    said = [item["msg"] for item in errors if _keys(model, item["loc"])[0] == keys]
    said = [text.removeprefix("Input ").removeprefix("Value error, ") for text in said]
    what = " or ".join(dict.fromkeys(said))
    return f"[{key}] {what}" if isinstance(value, Mapping) else f"{key} = {value!r}: {what}"


def _keys(model: type[BaseModel], location: tuple[Any, ...]) -> tuple[list[str], type[BaseModel]]:
    """The keys in pydantic's location, and the table that holds the last of them.

    The rest of the location are branches of a union, or items of a list.
    """
    keys: list[str] = []
    owner, current = model, model
    for part in location:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            break
        owner = current
        keys.append(str(part))
        field = owner.model_fields.get(str(part))
        current = field.annotation if field else None  # type: ignore[assignment]
    return keys, owner
