"""The signature of an optimizer or a schedule is a strict schema.

A hyperparameter's name, type and default are written once, in the code that uses them. From there
come its validation, the complete configuration in the record and the listing for people.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    create_model,
)

from configs.validation import ConfigError, Strict, validate

NonNegative = NonNegativeFloat
Positive = PositiveFloat
AtLeastOne = Annotated[float, Field(ge=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]  # decay of an exponential moving average
Betas = tuple[Beta, Beta]
Ratio = Annotated[float, Field(ge=0, le=1)]
PositiveRatio = Annotated[float, Field(gt=0, le=1)]
OpenRatio = Annotated[float, Field(gt=0, lt=1)]
Count = PositiveInt


def _steps(value: int | float) -> int | float:
    if isinstance(value, float) and not 0 <= value < 1:
        raise ValueError(
            "a float is a fraction of the run, from 0 to below 1; "
            "a number of steps is an integer, such as 1"
        )
    if value < 0:
        raise ValueError("a number of steps should be 0 or more")
    return value


def _positive(value: int | float) -> int | float:
    if value == 0:
        raise ValueError("should be at least 1 step, or a fraction of the run above 0")
    return value


def _run_steps(value: int | float) -> int | float:
    if isinstance(value, float) and not 0 <= value <= 1:
        raise ValueError(
            "a float is a fraction of the run, from 0.0 to 1.0; a number of updates is an integer,"
            " such as 100"
        )
    return _steps(value) if isinstance(value, int) else value


# An int counts steps, a float is a fraction of the run: 1 is one step, 1.0 is refused.
Steps = Annotated[int | float, AfterValidator(_steps)]
PositiveSteps = Annotated[int | float, AfterValidator(_steps), AfterValidator(_positive)]
# Of an optimizer, which is given updates (`in_updates`). Here 1.0 is the whole run, 1 one update.
OF_THE_RUN = "counted in updates, or a fraction of the run"
RunSteps = Annotated[int | float, AfterValidator(_run_steps), OF_THE_RUN]

ROUNDING = 1e-9  # steps; 0.07 * 100 is 7.000000000000001, which must not become 8

_SCALARS = (bool, int, float, str)
_PLAIN = bool | int | float | str | tuple | None  # what a TOML file can say


class Hyperparameters(Strict):
    """Base of the models below; NaN and infinity are not hyperparameters."""

    model_config = ConfigDict(allow_inf_nan=False, protected_namespaces=())


def from_locals(values: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters among the `locals()` of an optimizer's `__init__`, or `values` itself."""
    return {k: v for k, v in values.items() if k not in ("self", "params", "__class__")}


def complete(target: Callable[..., Any], given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """`given`, validated against the signature of `target`, with the defaults filled in.

    Values of None are left out: TOML has none, and a missing key means the same.

    Raises:
        ConfigError: unknown key, missing key or wrong type; one line that names `prefix.key`.
    """
    model = _model(target)
    valid = validate(model, given, prefix, beside=() if "." in prefix else ("name",))
    values = {name: getattr(valid, name) for name in model.model_fields}
    for name in given:
        if not _writable(values[name]) and values[name] != model.model_fields[name].default:
            raise ConfigError(
                f"{prefix}.{name} = none: the record cannot hold it, since TOML has no such value;"
                " none is valid only where it is the default"
            )
    return {name: value for name, value in values.items() if _writable(value)}


def placed(steps: int | float, total_steps: int) -> int:
    """`steps` as a number of updates: itself if an int, else that fraction of the run."""
    if isinstance(steps, int):
        return steps
    return math.ceil(steps * total_steps - ROUNDING)


def in_updates(
    target: Callable[..., Any], values: Mapping[str, Any], total_steps: int | None, prefix: str
) -> dict[str, Any]:
    """`values`, with numbers of updates where the signature of `target` has `RunSteps`.

    total_steps: updates of the run; None if they are not known.

    Raises:
        ConfigError: a fraction of an unknown length, or more updates than the run has; one line.
    """
    hints, result = _hints(target), dict(values)
    for name, value in values.items():
        if OF_THE_RUN not in getattr(hints.get(name), "__metadata__", ()):
            continue
        if total_steps is None and isinstance(value, float):
            raise ConfigError(
                f"{prefix}.{name} = {value} is a fraction of the run, whose length is not known;"
                f" give build_optimizer total_steps, or {name} as a number of updates"
            )
        if total_steps is not None and (updates := placed(value, total_steps)) > total_steps:
            raise ConfigError(
                f"{prefix}.{name} = {value} is longer than the run of {total_steps} updates;"
                " give fewer, or a fraction of the run such as 1.0"
            )
        result[name] = value if total_steps is None else updates
    return result


@functools.cache  # building one takes milliseconds, and a contest of 1,000 runs asks for 2,000
def _model(target: Callable[..., Any]) -> type[Hyperparameters]:
    return create_model("Hyperparameters", __base__=Hyperparameters, **schema(target))


def schema(target: Callable[..., Any]) -> dict[str, Any]:
    """(type, default) of each hyperparameter in the signature of `target`, in its order.

    An optimizer's first parameter, `params`, and a schedule's first two, `step` and `total_steps`,
    are not hyperparameters. Our own signatures are annotated throughout; those of others may not
    be. A parameter whose type TOML cannot express (a tensor, a callable) is left out; a missing
    type is that of the default.
    """
    positional = 1 if inspect.isclass(target) else 2
    hints = _hints(target)
    fields: dict[str, Any] = {}
    for parameter in list(inspect.signature(target).parameters.values())[positional:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue  # what a class does with **kwargs cannot be checked
        hint = _expressible(hints.get(parameter.name))
        if parameter.default is parameter.empty:
            fields[parameter.name] = (_PLAIN if hint is None else hint, ...)
        elif _plain(parameter.default):
            fields[parameter.name] = _typed_default(hint, parameter.default)
    return fields


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # a name imported for the type checker only, in a module of others
        return {}


def _expressible(hint: Any) -> Any:
    """`hint` without the branches that TOML cannot express; None if nothing is left."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SCALARS or hint is type(None) or origin is Literal:
        return hint
    if origin in (Union, types.UnionType):
        kept = [part for part in map(_expressible, args) if part is not None]
        plain = [part for part in kept if part is not type(None)]
        return Union[tuple(kept)] if plain else None  # noqa: UP007  # built from a list
    if origin is Annotated:
        return hint if _expressible(args[0]) is not None else None
    if origin is tuple:
        items = [part if part is Ellipsis else _expressible(part) for part in args]
        return None if None in items else tuple[tuple(items)]  # type: ignore[misc]
    return None


def _typed_default(hint: Any, default: Any) -> tuple[Any, Any]:
    if hint is None:
        hint = _type_of(default)
    try:
        return hint, TypeAdapter(hint).validate_python(_tuple(default), strict=True)
    except ValidationError:  # the author's own annotation excludes the author's default
        return hint | _type_of(default), _tuple(default)


def _type_of(default: Any) -> Any:
    if isinstance(default, bool | str):
        return type(default)
    if isinstance(default, int | float):
        return float if isinstance(default, float) else int | float  # `weight_decay=0`
    if isinstance(default, list | tuple) and default:
        return tuple[tuple(_type_of(item) for item in default)]  # type: ignore[misc]
    return _PLAIN


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(item) for item in value)
    return value is None or isinstance(value, _SCALARS)


def _writable(value: Any) -> bool:
    return all(map(_writable, value)) if isinstance(value, tuple) else value is not None
