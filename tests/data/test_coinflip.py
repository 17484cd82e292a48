"""Coin flips: the entropy that they print, and independence."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from data.__main__ import main
from data.coinflip import entropy, flip
from tests.data.reading import read


def test_coinflip_has_the_entropy_it_prints(cli, tmp_path):
    result = cli("coinflip", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    floor = float(re.search(r"is ([\d.]+) nats", result.stdout)[1])
    assert floor == pytest.approx(-0.666 * math.log(0.666) - 0.334 * math.log(0.334), abs=1e-6)
    for split, length in {"train": 2_000_000, "val": 1_000_000}.items():
        tokens = read(tmp_path, split, vocab_size=2)
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
    assert f"--p {p} is not the probability of a coin; valid: between 0 and 1" in result.stderr


def by_hand(p, length, seed, stream):
    """The hash of each place in unbounded integers, one at a time."""
    bits, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & bits
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & bits
        return z ^ (z >> 31)

    key = mix((mix((seed + golden) & bits) ^ stream) + golden & bits)
    key = mix(key + golden & bits)
    places = [mix(mix(i + key & bits) + key & bits) for i in range(length)]
    return [int(place < round(p * 2**64)) for place in places]


@pytest.mark.parametrize(("p", "seed", "stream"), [(0.666, 1, 0), (0.1, 2**64 - 1, 1)])
def test_flips_are_a_hash_of_their_place(p, seed, stream):
    (flips,) = flip(p, 200, seed=seed, stream=stream)
    assert flips.dtype == np.uint16
    assert flips.tolist() == by_hand(p, 200, seed, stream)


def test_flips_come_in_pieces_that_join():
    pieces = list(flip(0.5, 2**21 + 3, seed=1, stream=0))
    assert [len(piece) for piece in pieces] == [2**20, 2**20, 3]
    (first,) = flip(0.5, 2**20, seed=1, stream=0)
    assert np.array_equal(pieces[0], first)
    assert pieces[1][:20].tolist() != first[:20].tolist()


def test_the_directory_holds_the_recipe_and_all_streams(tmp_path, capsys):
    words = ["coinflip", "--out", str(tmp_path), "--train-tokens", "3K", "--val-tokens", "2K"]
    assert main(words) == 0
    floor = -0.666 * math.log(0.666) - 0.334 * math.log(0.334)
    assert f"the entropy of p = 0.666 is {floor:.6f} nats" in capsys.readouterr().out
    meta = json.loads((tmp_path / "meta.json").read_text())
    expected = {
        "source": "coinflip",
        "tokenizer": "coinflip",
        "vocab_size": 2,
        "eot_id": None,
        "arguments": {"p": 0.666, "seed": 1, "val": 2000, "train": 3000, "test_tokens": 2000},
    }
    assert {name: meta[name] for name in expected} == expected
    for split, stream, length in (("train", 0, 3000), ("val", 1, 2000), ("test", 2, 2000)):
        assert meta["splits"][split]["documents"] is None
        tokens = read(tmp_path, split, vocab_size=2)
        assert tokens.tolist() == by_hand(0.666, length, 1, stream)
    before = (tmp_path / "meta.json").read_bytes()
    assert main(words) == 0
    assert (tmp_path / "meta.json").read_bytes() == before
    assert "the entropy of p" in capsys.readouterr().out


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_coinflip_refuses_a_seed_that_is_no_64_bit_number(tmp_path, capsys, seed):
    assert main(["coinflip", f"--seed={seed}", "--out", str(tmp_path)]) == 2
    assert f"--seed {seed} is not in 0 ... 2**64 - 1" in capsys.readouterr().err
    small = ["--train-tokens", "10", "--val-tokens", "10"]
    for valid in (0, 2**64 - 1):
        assert (
            main(["coinflip", f"--seed={valid}", "--out", str(tmp_path / str(valid)), *small]) == 0
        )


def test_entropy_of_a_coin():
    assert entropy(0.25) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    assert entropy(2 / 3) == pytest.approx(0.6365, abs=1e-4)
