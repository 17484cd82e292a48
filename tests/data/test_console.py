"""How the commands read numbers."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from data.console import count


@pytest.mark.parametrize(
    ("text", "number"),
    [("1B", 10**9), ("2.5m", 2_500_000), ("100_000", 100_000), ("1,000", 1000), ("10K", 10_000)],
)
def test_token_counts_are_read(text, number):
    assert count(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "B", "1e6", "1 G", "0.0001K"])
def test_other_token_counts_are_refused(text):
    with pytest.raises(ArgumentTypeError, match="1B"):
        count(text)
