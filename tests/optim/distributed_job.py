"""Every optimizer of the table under DDP: on the ranks that test_distributed.py starts.

Trains a tiny GPT-2 with each for a few steps, with another batch on every rank, and writes as JSON
the hashes of the parameters on all ranks. "alone" is AdamW without DDP, whose ranks must drift
apart: a hash that cannot see that sees nothing.
"""

import hashlib
import json
import sys
import tomllib
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import train_gpt2
from configs import Model
from optim import OPTIMIZERS, build_optimizer
from tests.jobs import ROOT

STEPS = 3
SHAPE = Model(vocab_size=32, block_size=8, n_layer=2, n_head=2, n_embd=16)


def main() -> None:
    dist.init_process_group("gloo")
    arms = {name: name for name in OPTIMIZERS} | {"alone": "adamw"}
    hashes = {arm: trained(name, alone=arm == "alone") for arm, name in arms.items()}
    every: list = [None] * dist.get_world_size()
    dist.all_gather_object(every, hashes)
    if dist.get_rank() == 0:
        start = fingerprint(train_gpt2.GPT.initialised(SHAPE, seed=1))
        found = {arm: [one[arm] for one in every] for arm in arms}
        Path(sys.argv[1]).write_text(json.dumps({"start": start, "hashes": found}))
    dist.barrier()
    dist.destroy_process_group()


def trained(name: str, alone: bool) -> str:
    """Hash of the parameters after some steps on this rank's own batches."""
    preset = tomllib.loads((ROOT / "configs" / "optimizer" / f"{name}.toml").read_text())
    values = preset["optimizer"]
    if "n_head" in values:
        values["n_head"] = SHAPE.n_head
    model = train_gpt2.GPT.initialised(SHAPE, seed=1)
    parallel = model if alone else DistributedDataParallel(model)
    optimizer = build_optimizer(
        values.pop("name"), model.parameter_groups(), total_steps=100, **values
    )
    torch.manual_seed(dist.get_rank())  # data and all other randomness differ
    for step in range(STEPS):
        tokens = torch.randint(SHAPE.vocab_size, (4, SHAPE.block_size + 1))
        if optimizer.curvature_due(step):
            parallel(tokens[:, :-1], torch.rand(4, SHAPE.block_size)).backward()
            optimizer.update_curvature(tokens.numel())
            optimizer.zero_grad()
        parallel(tokens[:, :-1], tokens[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return fingerprint(model)


def fingerprint(model: torch.nn.Module) -> str:
    """SHA-256 of all parameters, bit for bit."""
    digest = hashlib.sha256()
    for p in model.parameters():
        digest.update(p.detach().numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
