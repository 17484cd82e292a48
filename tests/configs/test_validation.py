"""Strict types, and messages that say what is wrong."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from configs.validation import ConfigError, Strict, nearest, validate


class Inner(Strict):
    count: Annotated[int, Field(gt=0)]
    rate: float = 1.0
    pair: tuple[float, float] = (0.0, 1.0)
    kind: Literal["a", "b"] = "a"
    steps: int | float = 0


class Outer(Strict):
    inner: Inner


def test_int_becomes_float_and_list_tuple_and_nothing_else():
    inner = validate(Outer, {"inner": {"count": 1, "rate": 2, "pair": [3, 4.5]}}).inner
    assert (inner.rate, inner.pair) == (2.0, (3.0, 4.5))
    assert isinstance(inner.rate, float)


@pytest.mark.parametrize("steps", [3, 0.3])
def test_union_keeps_int_and_float_apart(steps):
    assert type(validate(Inner, {"count": 1, "steps": steps}).steps) is type(steps)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"count": True}, "x.inner.count = True: should be a valid integer"),
        ({"count": 1.0}, "x.inner.count = 1.0: should be a valid integer"),
        ({"count": "1"}, "x.inner.count = '1': should be a valid integer"),
        ({"count": 0}, "x.inner.count = 0: should be greater than 0"),
        ({"count": 1, "rate": True}, "x.inner.rate = True: should be a valid number"),
        ({"count": 1, "rate": float("inf")}, "x.inner.rate = inf: should be a finite number"),
        ({"count": 1, "pair": [1]}, "x.inner.pair = [1]: "),
        ({"count": 1, "pair": ["1", 2]}, "x.inner.pair = ['1', 2]: should be a valid number"),
        ({"count": 1, "kind": "c"}, "x.inner.kind = 'c': should be 'a' or 'b'"),
        ({"count": 1, "steps": "x"}, "x.inner.steps = 'x': should be a valid integer or should be"),
        ({"count": 1, "rat": 2}, "unknown key 'x.inner.rat'; did you mean 'rate'? (valid: count,"),
        ({}, "'x.inner.count' is missing; give it in a TOML file or as --x.inner.count VALUE"),
    ],
)
def test_message_names_key_value_and_remedy_in_one_line(table, message):
    with pytest.raises(ConfigError) as caught:
        validate(Outer, {"inner": table}, "x")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_nearest_guesses_only_what_is_near():
    assert nearest("weight_decya", ["lr", "weight_decay"]).startswith(
        "did you mean 'weight_decay'?"
    )
    assert nearest("zzz", ["lr", "weight_decay"]) == "(valid: lr, weight_decay)"
