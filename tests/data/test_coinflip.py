"""Coin flips: the entropy that they print, and independence."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from data.coinflip import entropy, flip
from tests.data.reading import all_tokens


def test_coinflip_has_the_entropy_it_prints(cli, tmp_path):
    result = cli("coinflip", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    floor = float(re.search(r"is ([\d.]+) nats", result.stdout)[1])
    assert floor == pytest.approx(-0.666 * math.log(0.666) - 0.334 * math.log(0.334), abs=1e-6)
    for split, length in {"train": 2_000_000, "val": 1_000_000}.items():
        tokens = all_tokens(tmp_path, split, vocab_size=2)
        assert len(tokens) == length
        heads = tokens.mean()
        assert abs(-heads * math.log(0.666) - (1 - heads) * math.log(0.334) - floor) < 0.002
        # Independent: the entropy of a flip given the three before it is no lower.
        context = tokens[:-3] * 4 + tokens[1:-2] * 2 + tokens[2:-1]
        given_context = [tokens[3:][context == c].mean() for c in range(8)]
        assert max(given_context) - min(given_context) < 0.01


def test_coinflip_seeds_and_splits_differ_and_parts_do_not_matter():
    def flips(length, **options):
        return np.concatenate(list(flip(0.5, length, **({"seed": 1, "stream": 0} | options))))

    assert not np.array_equal(flips(1000), flips(1000, seed=2))
    assert not np.array_equal(flips(1000), flips(1000, stream=1))
    assert np.array_equal(flips(1000), flips(2**20 + 5)[:1000])
    assert entropy(0.5) == pytest.approx(math.log(2))


@pytest.mark.parametrize("p", ["0", "1", "1.5", "-1", "nan"])
def test_coinflip_refuses_what_is_no_coin(cli, tmp_path, p):
    result = cli("coinflip", f"--p={p}", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "between 0 and 1" in result.stderr
