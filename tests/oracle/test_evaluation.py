"""On two ranks too all held-out losses are Hugging Face's; test_training.py has one rank."""

import numpy as np
import pytest
import torch

from record import sequences
from tests.jobs import command, finish, only_run, ranks
from tests.oracle.reference import column, hugging_face, lines_of, mean_loss, windows
from train_gpt2 import main

SHAPE = {"vocab_size": 256, "block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 32}
ROWS = 11  # rank 0 evaluates 4 + 1 of them, rank 1 4 + 2


PROGRAM = """import sys
import train_gpt2  # as a module, so that its mutants are seen
from record import hardware
hardware.peak_flops = lambda name, dtype: 1e9
sys.exit(train_gpt2.main(sys.argv[1:]))
"""


def test_two_ranks_have_hugging_faces_losses_and_the_updates_of_one(shards, tmp_path):
    """With an optimizer that draws labels: a row draws the same on any rank."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    flags = f"--eval.tokens {32 * ROWS} --eval.every 5 --checkpoint.every 5 --train.total_steps 10 "
    flags += "--optimizer.name sophia_g --optimizer.lr 3e-3 --optimizer.k 3"
    for rank in ranks([*command(shards, tmp_path / "two"), *flags.split()], 2, str(program)):
        finish(rank)
    assert main([*command(shards, tmp_path / "one"), *flags.split()]) == 0
    directory = only_run(tmp_path / "two")
    two, one = lines_of(directory), lines_of(only_run(tmp_path / "one"))
    for name in ("train/loss", "train/grad_norm", "val/loss", "tokens"):
        assert column(two, name) == pytest.approx(column(one, name), rel=1e-4)

    parameters = 256 * 32 + 2 * 12_704 + 64  # without the positions
    done = (6 * parameters + 12 * 2 * 32 * 32) * 512 / (column(two, "time/step_ms") / 1e3)
    assert column(two, "mfu") == pytest.approx(done / 2e9)  # of the peak of both

    rows = windows(shards / "tiny_val_000000.bin", ROWS, 32)
    test_rows = windows(shards / "tiny_test_000000.bin", ROWS, 32)
    expected = {}
    for path in (directory / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)
        with torch.no_grad():
            model, step = hugging_face(state["model"], SHAPE), state["progress"]["step"]
            expected[step] = mean_loss(model, rows).item()
            if step == 10:
                each = {
                    split: [mean_loss(model, row[None]).item() for row in text]
                    for split, text in (("val", rows), ("test", test_rows))
                }
    found = {line["step"]: line["val/loss"] for line in two if "val/loss" in line}
    assert sorted(expected) == [5, 10]
    assert {step: found[step] for step in expected} == pytest.approx(expected, abs=1e-5)
    assert expected[5] - expected[10] > 0.1

    for run in (directory, only_run(tmp_path / "one")):
        losses = sequences.read(run)
        assert list(losses) == ["val", "test"]
        last = lines_of(run)[-1]
        for split, values in losses.items():
            assert values.dtype == np.float32
            assert values == pytest.approx(each[split], abs=3e-5)
            assert last[f"{split}/loss"] == pytest.approx(
                float(values.astype(float).mean()), rel=1e-12
            )
    assert [line["step"] for line in two if "test/loss" in line] == [10]
