"""Strict types, and messages that say what is wrong."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from configs.validation import ConfigError, Strict, guess, nearest, validate


class Inner(Strict):
    count: Annotated[int, Field(gt=0)]
    rate: float = 1.0
    pair: tuple[float, float] = (0.0, 1.0)
    kind: Literal["a", "b"] = "a"
    steps: int | float = 0
    on: bool | None = None
    word: Literal["none", "other"] | None = "other"


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
        ({"count": True}, "x.inner.count = True: should be a whole number, such as 1000"),
        ({"count": 1.0}, "x.inner.count = 1.0: should be a whole number, such as 1"),
        ({"count": 1.5}, "x.inner.count = 1.5: should be a whole number, such as 1000"),
        ({"count": "1"}, "x.inner.count = '1': should be a whole number, such as 1000"),
        ({"count": 0}, "x.inner.count = 0: should be greater than 0"),
        ({"count": 1, "rate": True}, "x.inner.rate = True: should be a valid number"),
        ({"count": 1, "rate": float("inf")}, "x.inner.rate = inf: should be a finite number"),
        (
            {"count": 1, "pair": [1]},
            "x.inner.pair = [1]: should be a list, such as 0.0,1.0 or [0.0, 1.0]",
        ),
        ({"count": 1, "pair": "1;2"}, "x.inner.pair = '1;2': should be a list, such as 0.0,1.0 or"),
        ({"count": 1, "on": 1}, "x.inner.on = 1: should be true or false"),
        ({"count": 1, "pair": ["1", 2]}, "x.inner.pair = ['1', 2]: should be a valid number"),
        ({"count": 1, "kind": "c"}, "x.inner.kind = 'c': should be 'a' or 'b'"),
        (
            {"count": 1, "steps": "x"},
            "x.inner.steps = 'x': should be a whole number, such as 1000 or ",
        ),
        ({"count": 1, "rat": 2}, "unknown key 'x.inner.rat'; did you mean 'rate'? valid: count,"),
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
    assert nearest("zzz", ["lr", "weight_decay"]) == "valid: lr, weight_decay"


@pytest.mark.parametrize("word", ["AdamW", "adam-w", "ADAMW", "Adam_W"])
def test_capitals_and_hyphens_do_not_mislead_the_guess(word):
    assert guess(word, ["adam", "nadamw", "adamw"]) == "did you mean 'adamw'?"


def test_none_is_a_value_where_the_type_has_it_and_no_word_is_spelt_so():
    inner = validate(Inner, {"count": 1, "on": "None", "word": "none"})
    assert (inner.on, inner.word) == (None, "none")
    with pytest.raises(ConfigError, match=r"^rate = 'none': should be a valid number$"):
        validate(Inner, {"count": 1, "rate": "none"})


def test_keys_beside_the_model_are_guessed_too():
    with pytest.raises(ConfigError, match=r"'o.nme'; did you mean 'name'\? valid: count, .*name"):
        validate(Inner, {"count": 1, "nme": 2}, "o", beside=("name",))
