"""Steps of every optimizer, alone or with shared work, with the same gradients on all ranks.

As a program, started as ranks in test_ownership.py: it loads the states in a file, trains from step
FIRST to LAST, and rank 0 writes the states again.
"""

import sys
import tomllib
from pathlib import Path

import torch
import torch.distributed as dist

import train_gpt2
from configs import Model
from optim import OPTIMIZERS, build_optimizer, optimizer_state_bytes
from optim.core.ownership import Owned
from tests.jobs import ROOT

SHAPE = Model(vocab_size=32, block_size=8, n_layer=1, n_head=2, n_embd=16)
PRESET = "as in its preset, on a GPT-2"


def cases():
    """Name of the case: name of the optimizer, its hyperparameters, and what it trains."""
    found = {}
    for name in OPTIMIZERS:
        preset = tomllib.loads((ROOT / "configs" / "optimizer" / f"{name}.toml").read_text())
        values = {**preset["optimizer"], "n_head": SHAPE.n_head}
        if "n_head" not in preset["optimizer"]:
            del values["n_head"]
        found[name] = (values.pop("name"), values, PRESET)
    for name in ("sgd_sai", "sgd_sqrtn"):
        found[f"{name}, normalise"] = (name, {"normalise": True}, PRESET)
    one = {"prodigy": {"use_bias_correction": True}, "sgd_sai": {"normalise": True}}
    for name in ("adamw", "sophia_g", "schedule_free_adamw", "prodigy", "sgd_sai"):
        found[f"{name}, one matrix"] = (name, one.get(name, {}), "one matrix")
    outer = {"outer_nesterov": {"every": 2}, "ema": {"judged": True}, "lawa": {"every": 1}}
    found["adamw, averaged"] = ("adamw", {"wrap": outer}, PRESET)
    ahead = {"hyperball": {}, "ema_nesterov": {}, "momentum_schedule": {}}
    found["muon, on spheres"] = ("muon", {"weight_decay": 0.0, "wrap": ahead}, PRESET)
    return found


def built(case, saved=None, rank=0, ranks=1):
    """Parameters and optimizer of a case; shared by `ranks` if they are more than one."""
    name, values, what = cases()[case]
    if what == PRESET:
        model = train_gpt2.GPT.initialised(SHAPE, seed=1)
        params, groups = list(model.parameters()), model.parameter_groups()
    else:
        params = [torch.nn.Parameter(torch.ones(6, 4))]
        groups = [{"params": params}]
    optimizer = build_optimizer(name, groups, total_steps=100, **values)
    if ranks > 1:
        optimizer = Owned(optimizer, rank, ranks)
    if saved:
        for p, kept in zip(params, saved["weights"], strict=True):
            p.data.copy_(kept)
        optimizer.load_state_dict(saved["optimizer"])
    return params, optimizer


def train(params, optimizer, first, last):
    """Steps `first` to `last`, with gradients that depend on the step alone."""
    row = optimizer.row if isinstance(optimizer, Owned) else optimizer
    late = not isinstance(row, torch.optim.SGD)  # torch's fused kernel cannot
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        curvatures = [torch.randn(p.shape, generator=generator) for p in params]
        grads = [torch.randn(p.shape, generator=generator) for p in params]
        if optimizer.curvature_due(step):
            for p, g in zip(params, curvatures, strict=True):
                p.grad = g
            optimizer.update_curvature(64)
        if optimizer.logits_due(step):
            optimizer.update_logits(
                {"h.0.attn": 200 * torch.rand(SHAPE.n_head, generator=generator)}
            )
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            p.grad = g
            if len(params) > 1 and ((i == 2 and step < 2 and late) or (i == 5 and step == 3)):
                p.grad = None  # one comes late, and one is missing once
        optimizer.step()


def state(params, optimizer):
    """What a checkpoint keeps, what is evaluated, and the numbers of the method."""
    trained = [p.detach().clone() for p in params]
    evaluated = {name: [p.detach().clone() for p in params] for name in optimizer.evaluations()}
    return {
        "weights": trained,
        "optimizer": optimizer.whole_state_dict(),
        "evaluated": evaluated,
        "diagnostics": optimizer.diagnostics(),
    }


def main():
    source, target, first, last = sys.argv[1:]
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    loaded, found = torch.load(source), {}
    for case in cases():
        params, optimizer = built(case, loaded[case], rank, ranks)
        train(params, optimizer, int(first), int(last))
        result = state(params, optimizer)
        every = [None] * ranks
        weights = [result["weights"], *result["evaluated"].values()]
        held = len(optimizer.row.state), optimizer_state_bytes(optimizer)
        dist.all_gather_object(every, ([[t.numpy().tobytes() for t in w] for w in weights], held))
        agree = all(theirs == every[0][0] for theirs, _ in every)
        found[case] = {**result, "agree": agree, "held": [own for _, own in every]}
    if rank == 0:
        torch.save(found, Path(target))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
