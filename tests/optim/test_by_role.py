"""What a configuration means for GPT-2's parameters, against a real model and a real step."""

import pytest
import torch

from configs import load
from optim import optimizer_of, optimizer_state_bytes, resolve
from optim.by_role import state_bytes, state_to_come
from train_gpt2 import GPT

SIZES = {"vocab_size": 128, "block_size": 16, "n_layer": 3, "n_head": 2, "n_embd": 32}
FLAGS = [word for key, value in SIZES.items() for word in (f"--model.{key}", str(value))]


EMA = ["--optimizer.wrap.ema.decay", "0.9"]


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        *(
            (name, [])
            for name in ("sgd", "adamw", "adafactor", "muon", "soap", "psgd_kron", "dion")
        ),
        ("adamw", EMA),
        ("muon", EMA),
    ],
)
def test_state_is_counted_without_data(name, wrap):
    """psgd_kron and adafactor decide by data: their state is there before they fail."""
    config = resolve(load([*FLAGS, "--optimizer.name", name, "--optimizer.lr", "1e-3", *wrap]))
    model = GPT.initialised(config.model, 1)
    optimizer = optimizer_of(config, model.parameter_groups())
    counted = state_bytes(config)
    assert state_to_come(config, optimizer, 0, 1) == counted
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    found = optimizer_state_bytes(optimizer)
    assert counted == pytest.approx(found, rel=0.02, abs=64)
    assert state_to_come(config, optimizer, 0, 1) <= 0.02 * found + 64


def test_ranks_that_share_the_work_keep_all_of_it_together():
    """Two of them, each counted for itself."""
    shared = ["--train.shard_optimizer", "true"]
    config = resolve(load([*FLAGS, *shared]))
    assert sum(state_bytes(config, rank, 2) for rank in (0, 1)) == state_bytes(config)
