"""On two ranks too the validation loss is Hugging Face's; test_training.py has one rank."""

import pytest
import torch

from tests.jobs import command, finish, only_run, ranks
from tests.oracle.reference import hugging_face, lines_of, mean_loss, windows

SHAPE = {"vocab_size": 256, "block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 32}
ROWS = 11  # rank 0 evaluates 4 + 1 of them, rank 1 4 + 2


def test_validation_loss_of_two_ranks_is_hugging_faces_on_the_same_windows(shards, tmp_path):
    flags = ["--eval.tokens", str(32 * ROWS), "--eval.every", "5", "--checkpoint.every", "5"]
    arguments = [*command(shards, tmp_path / "runs"), *flags, "--train.total_steps", "10"]
    for rank in ranks(arguments, 2):
        finish(rank)
    directory = only_run(tmp_path / "runs")
    found = {line["step"]: line["val/loss"] for line in lines_of(directory) if "val/loss" in line}
    rows = windows(shards / "tiny_val_000000.bin", ROWS, 32)
    expected = {}
    for path in (directory / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)
        with torch.no_grad():
            loss = mean_loss(hugging_face(state["model"], SHAPE), rows).item()
        expected[state["progress"]["step"]] = loss
    assert sorted(expected) == [5, 10]
    assert {step: found[step] for step in expected} == pytest.approx(expected, abs=1e-5)
    assert expected[5] - expected[10] > 0.1
