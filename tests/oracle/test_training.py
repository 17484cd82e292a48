"""A whole run against Hugging Face's GPT-2 trained by torch's AdamW, written out step by step.

The training split is exactly one batch, so that the loop's order of data does not matter here.
"""

import math
import time

import numpy as np
import pytest
import torch

from configs import Model
from tests.jobs import command, only_run, write_shard
from tests.oracle.reference import column, hugging_face, lines_of, mean_loss, windows
from train_gpt2 import GPT, main

SHAPE = {"vocab_size": 256, "block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 32}
STEPS, ROWS, WARMUP, PEAK, CLIP = 12, 16, 3, 1e-2, 0.5


@pytest.fixture
def one_batch(tmp_path):
    """Skewed tokens: 16 training windows of 32, and 12 for validation."""
    folder = tmp_path / "one_batch"
    folder.mkdir()
    tokens = np.random.default_rng(0).binomial(255, 0.2, 32 * (ROWS + 12) + 2)
    write_shard(folder / "x_train_0.bin", tokens[: 32 * ROWS + 1])
    write_shard(folder / "x_val_0.bin", tokens[32 * ROWS + 1 :])
    return folder


@pytest.fixture
def run(one_batch, tmp_path):
    """(lines of metrics.jsonl, last checkpoint, seconds) of our run, in micro-batches of 4 rows."""
    runs = tmp_path / "runs"
    flags = {
        "train.total_steps": STEPS,
        "train.batch_tokens": ROWS * 32,
        "train.grad_clip": CLIP,
        "optimizer.lr": PEAK,
        "schedule.warmup_steps": WARMUP,
        "eval.every": 5,
        "eval.tokens": 32 * 11,
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    began = time.perf_counter()
    assert main([*command(one_batch, runs), *words]) == 0
    wall = time.perf_counter() - began
    directory = only_run(runs)
    (path,) = (directory / "checkpoints").glob(f"step-{STEPS:08d}-*.pt")
    return lines_of(directory), torch.load(path, weights_only=True), wall


@pytest.fixture
def reference(one_batch):
    """The same run by others: {"train", "norm", "lr": per update; "val": by step; "model"}."""
    model = hugging_face(GPT.initialised(Model(**SHAPE), seed=1).state_dict(), SHAPE)
    decay = [p for p in model.parameters() if p.ndim > 1]
    other = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95), eps=1e-8)
    train_rows = windows(one_batch / "x_train_0.bin", ROWS, 32)
    val_rows = windows(one_batch / "x_val_0.bin", 11, 32)
    found = {"train": [], "norm": [], "lr": [], "val": {}, "model": model}
    for step in range(STEPS + 1):
        if step % 5 == 0 or step == STEPS:
            with torch.no_grad():
                found["val"][step] = mean_loss(model, val_rows).item()
        if step == STEPS:
            return found
        optimizer.zero_grad()
        loss = mean_loss(model, train_rows)
        loss.backward()
        norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in model.parameters()))
        for p in model.parameters():
            p.grad *= min(1.0, CLIP / norm.item())
        x = max(0.0, (step - WARMUP) / (STEPS - WARMUP))
        wave = 0.1 + 0.9 * (1 + math.cos(math.pi * x)) / 2
        lr = PEAK * min(1.0, (step + 1) / WARMUP) * wave
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        found["train"].append(loss.item())
        found["norm"].append(norm.item())
        found["lr"].append(lr)


def test_a_whole_run_is_the_references_in_every_number(run, reference):
    """One test, since one run serves them all."""
    lines, checkpoint, wall = run
    assert column(lines, "train/loss") == pytest.approx(reference["train"], abs=2e-5)
    assert column(lines, "train/grad_norm") == pytest.approx(reference["norm"], rel=1e-4)
    assert column(lines, "train/lr") == pytest.approx(reference["lr"], rel=1e-12)
    assert min(reference["norm"]) < CLIP < max(reference["norm"])  # some were clipped, not all

    val = {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}
    assert val == pytest.approx(reference["val"], abs=2e-5)
    assert val[0] - val[STEPS] > 0.5

    for name, p in reference["model"].transformer.named_parameters():
        theirs = p.T if p.ndim == 2 and name.startswith("h.") else p
        ours = checkpoint["model"][name][: len(theirs)]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)

    steps, whole = column(lines, "time/step_ms") / 1e3, column(lines, "time/train_seconds")
    assert whole == pytest.approx(np.cumsum(steps))
    parts = column(lines, "time/optimizer_ms") + column(lines, "time/data_wait_ms")
    assert (parts > 0).all()
    assert (parts < column(lines, "time/step_ms")).all()
    evaluations = column(lines, "time/eval_seconds")
    assert len(evaluations) == 4
    assert (evaluations > 0).all()
    assert whole[-1] + evaluations.sum() < wall
    assert column(lines, "tokens").tolist() == [(t + 1) * ROWS * 32 for t in range(STEPS)]
    assert column(lines, "tokens_per_second") == pytest.approx(ROWS * 32 / steps)
