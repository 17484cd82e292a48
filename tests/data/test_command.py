"""Making data ends with a command that trains on them."""

import shlex

import numpy as np
import pytest

from configs import load
from data.command import training_command
from data.writer import Output, Recipe, opened, write_documents
from train_gpt2 import prepare


def made(folder, source="text", vocab_size=257, **tokens):
    """A complete directory with so many tokens in each split."""
    recipe = Recipe(source, "bytes", vocab_size, None, {}, "the command")
    with opened(folder, recipe, shard_tokens=100_000) as output:
        assert isinstance(output, Output)
        for split, count in tokens.items():
            write_documents(output, split, [np.ones(count, np.uint16)])
        output.finish()
    return folder


@pytest.mark.parametrize(
    ("tokens", "flags"),
    [
        ({"val": 70_000, "train": 200_000}, []),
        ({"val": 13_030, "train": 82_284}, ["--eval.tokens", "12928"]),
        (
            {"val": 200, "train": 1_000},
            ["--eval.tokens", "128", "--train.batch_tokens", "512"],
        ),
    ],
)
def test_command_fits_the_data(tmp_path, tokens, flags):
    folder = made(tmp_path / "d", **tokens)
    words = shlex.split(training_command(folder))
    assert words[:4] == ["python", "-m", "launch", "configs/quickstart.toml"]
    assert words[4:] == ["--data.dir", str(folder), *flags]
    prepare(load(words[3:]), {})  # refuses what does not fit


def test_vocabulary_of_the_data_is_the_models(tmp_path):
    folder = made(tmp_path / "d", vocab_size=50257, val=70_000, train=100_000)
    assert training_command(folder).endswith(f"--data.dir {folder} --model.vocab_size 50257")


def test_source_and_size_choose_the_preset(tmp_path, monkeypatch):
    flips = made(tmp_path / "flips", "coinflip", 2, val=600_000, train=100_000)
    assert training_command(flips) == f"python -m launch configs/coinflip.toml --data.dir {flips}"
    monkeypatch.setattr("data.command.LARGE_TOKENS", 1_000_000)
    large = made(tmp_path / "large", vocab_size=50257, val=20_000, train=1_000_000)
    assert training_command(large) == (
        f"python -m launch configs/gpt2_124m.toml --data.dir {large} --eval.tokens 19456"
    )


def test_less_than_a_sequence_has_no_command(tmp_path):
    assert training_command(made(tmp_path / "d", val=100, train=1_000)) is None
