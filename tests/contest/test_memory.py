"""What a dry run says of memory."""

from contest.memory import LARGE_GPU, Room, lines
from contest.plan import make
from tests.contest import tiny

GPT2_XL = {
    "model.vocab_size": 50257,
    "model.block_size": 1024,
    "model.n_layer": 48,
    "model.n_head": 25,
    "model.n_embd": 1600,
    "train.batch_tokens": 64 * 1024,
    "train.micro_batch_size": 64,
    "train.device": "auto",
}


def said(shards, folder, room, arm, nproc=1):
    plan = make(tiny.parse(shards, {"cosine": {}, "large": arm}, seeds=[1]), folder)
    return list(lines(plan, room, nproc))


def test_arms_that_fit_are_not_warned_of_and_the_largest_is_named(shards, tmp_path):
    (line,) = said(shards, tmp_path, Room(False, 2.0**40, "here"), {"model.n_embd": 64})
    assert line.startswith("memory: at most ")
    assert line.endswith("(arm large)")


def test_an_arm_that_does_not_fit_gets_the_micro_batch_that_does(shards, tmp_path):
    """GPT-2 XL on 80 GB: 8 sequences by the table in its preset, whose next size is 16."""
    room = Room(True, LARGE_GPU, "a GPU of 80 GB")
    _, warning = said(shards, tmp_path, room, GPT2_XL)
    assert warning.startswith("warning: arm 'large' needs 2")
    assert "too much for a GPU of 80 GB (79.1 GiB)" in warning
    assert warning.endswith("give train.micro_batch_size = 8")


def test_ranks_that_add_up_several_micro_batches_keep_the_gradients_twice(shards, tmp_path):
    room = Room(True, 2.0**40, "here")
    for nproc, micro, gradients in ((1, 4, "5.8,"), (2, 32, "5.8,"), (2, 4, "11.6,")):
        (line,) = said(shards, tmp_path, room, {**GPT2_XL, "train.micro_batch_size": micro}, nproc)
        assert f"gradients {gradients}" in line


def test_blocks_run_again_where_one_sequence_is_too_much(shards, tmp_path):
    for gib, remedy in (
        (30.5, "train.micro_batch_size = 2 and train.activation_checkpointing = true"),
        (20, "a smaller model"),
    ):
        _, warning = said(shards, tmp_path, Room(True, gib * 2**30, "it"), GPT2_XL)
        assert warning.endswith(f"give {remedy}")
