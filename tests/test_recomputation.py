"""Blocks that run again in the backward pass change no result (train.activation_checkpointing)."""

import pytest
import torch

from configs import Model, load
from optim import build_optimizer, watched_logits
from tests.jobs import assert_same, command, finish, ranks, result
from train_gpt2 import GPT, main

SHAPE = Model(vocab_size=64, block_size=32, n_layer=3, n_head=2, n_embd=32)
ON = ["--train.activation_checkpointing", "true"]
CLIPPED = ["--optimizer.name", "muonclip", "--optimizer.tau", "0.01"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bfloat16-weights"])
def test_a_run_has_the_same_bits(shards, tmp_path, dtype):
    """With an optimizer that is given attention logits, and another micro-batch at the end."""
    for name, flags in (("without", []), ("with", ON)):
        given = [*command(shards, tmp_path / name), *CLIPPED, "--train.dtype", dtype, *flags]
        assert main(given) == 0
    assert_same(result(tmp_path / "without"), result(tmp_path / "with"))


@pytest.mark.slow  # two of each do what one does in the test before
def test_ranks_have_the_same_bits(shards, tmp_path):
    for name, flags in (("without", []), ("with", ON)):
        for rank in ranks([*command(shards, tmp_path / name), *flags], 2):
            finish(rank)
    assert_same(result(tmp_path / "without"), result(tmp_path / "with"))


def gradients(recomputes, backend):
    """Loss, gradients and largest logits of a pass; how often each block ran."""
    model = GPT.initialised(SHAPE, 1)
    model.recomputes = recomputes
    optimizer = build_optimizer("muonclip", model.parameter_groups())
    found, optimizer.update_logits = {}, lambda largest: found.update(largest)
    called = torch.compile(model, backend=backend, dynamic=False) if backend else model
    tokens = torch.randint(64, (4, 33), generator=torch.Generator().manual_seed(2))
    runs = []
    if not backend:
        model.h[0].register_forward_pre_hook(lambda *_: runs.append(0))
    with watched_logits(optimizer, model, 0, lambda x: x):
        loss = called(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
    torch._dynamo.reset()
    grads = {name: p.grad for name, p in model.named_parameters()}
    return {"loss": loss.detach(), "grads": grads, "logits": found}, len(runs)


@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_a_pass_has_the_same_bits_and_logits_compiled_or_not(backend):
    (plain, once), (again, twice) = (gradients(on, backend) for on in (False, True))
    assert_same(plain, again)
    assert (once, twice) == ((0, 0) if backend else (1, 2))


def test_it_is_no_part_of_a_runs_identity():
    assert load(ON).run_name == load([]).run_name
