"""The validation loss of a run is that of Hugging Face's GPT-2 with the same weights and tokens."""

import json

import pytest
import torch

from configs import Model
from tests.jobs import command, finish, job, only_run
from tests.oracle.reference import hugging_face, mean_loss, windows
from train_gpt2 import GPT, main

SHAPE = {"vocab_size": 256, "block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 32}
ROWS = 11  # the last batch of a rank is short: 4 + 4 + 3 alone; 4 + 1 and 4 + 2 on two ranks


@pytest.mark.parametrize("nproc", [0, 2])
def test_validation_loss_is_hugging_faces_on_the_same_windows(shards, tmp_path, nproc):
    flags = ["--eval.tokens", str(32 * ROWS), "--eval.every", "5", "--checkpoint.every", "5"]
    arguments = [*command(shards, tmp_path / "runs"), *flags, "--train.total_steps", "10"]
    if nproc:
        finish(job(arguments, nproc))
    else:
        assert main(arguments) == 0
    directory = only_run(tmp_path / "runs")
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    found = {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}

    weights = {0: GPT.initialised(Model(**SHAPE), seed=1).state_dict()}
    for path in (directory / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)
        weights[state["progress"]["step"]] = state["model"]
    assert sorted(found) == sorted(weights) == [0, 5, 10]
    rows = windows(shards / "tiny_val_000000.bin", ROWS, 32)
    with torch.no_grad():
        expected = {
            step: mean_loss(hugging_face(state, SHAPE), rows).item()
            for step, state in weights.items()
        }
    assert found == pytest.approx(expected, abs=1e-5)
    assert found[0] - found[10] > 0.1  # three different losses, not one three times
