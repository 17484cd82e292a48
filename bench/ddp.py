"""What data parallelism costs on this machine: all-reduce, bucket sizes, overlap.

    torchrun --standalone --nproc_per_node=2 -m bench.ddp                         # CPUs, gloo
    torchrun --standalone --nproc_per_node=8 -m bench.ddp --config configs/gpt2_124m.toml

Rank 0 prints JSON: all-reduce seconds and rate by size; seconds of forward and backward without
communication, then with DDP at several bucket sizes, and with the gradients reduced only after the
backward pass. Each figure is the best and the median of the repetitions.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from configs import load
from train_gpt2 import GPT

ROOT = Path(__file__).parent.parent
MIB = 2**20


def clock(work: Callable[[], object], repeats: int, device: torch.device) -> dict[str, float]:
    """Milliseconds of `work`, after one time that does not count."""
    seconds = []
    for _ in range(repeats + 1):
        dist.barrier()
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(1e3 * (time.perf_counter() - began))
    own = seconds[1:]
    return {"best_ms": round(min(own), 2), "median_ms": round(statistics.median(own), 2)}


def all_reduce(device: torch.device, repeats: int) -> list[dict[str, float]]:
    """By size; bus rate = 2 (n - 1) / n x bytes / best time, as in nccl-tests."""
    rows, n = [], dist.get_world_size()
    for mib in (0.25, 1, 4, 25, 100):
        data = torch.ones(int(mib * MIB / 4), device=device)
        times = clock(partial(dist.all_reduce, data), repeats, device)
        rate = 2 * (n - 1) / n * mib * MIB / (times["best_ms"] / 1e3) / 1e9
        rows.append({"mib": mib, **times, "bus_gb_per_s": round(rate, 2)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/quickstart.toml")
    parser.add_argument("--rows", type=int, default=8, help="sequences of a micro-batch")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    shape = load([str(ROOT / options.config)]).model
    model = GPT.initialised(shape, seed=1).to(device)
    tokens = torch.randint(shape.vocab_size, (options.rows, shape.block_size + 1), device=device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=cuda)

    def step(module: torch.nn.Module) -> None:
        module.zero_grad(set_to_none=False)
        with autocast:
            loss = module(tokens[:, :-1], tokens[:, 1:])
        loss.backward()

    def step_then_reduce() -> None:
        step(model)
        flat = torch._utils._flatten_dense_tensors([p.grad for p in model.parameters()])
        dist.all_reduce(flat)

    figures: dict[str, object] = {
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "processes": dist.get_world_size(),
        "threads": torch.get_num_threads(),
        "config": options.config,
        "tokens_per_process": options.rows * shape.block_size,
        "gradient_mib": round(sum(p.numel() for p in model.parameters()) * 4 / MIB, 2),
        "all_reduce": all_reduce(device, options.repeats),
        "alone": clock(partial(step, model), options.repeats, device),
        "reduce_afterwards": clock(step_then_reduce, options.repeats, device),
    }
    for mib in (0.25, 1, 5, 25, 100):
        parallel = DistributedDataParallel(
            model, [local] if cuda else None, bucket_cap_mb=mib, gradient_as_bucket_view=True
        )
        step(parallel)  # DDP builds its buckets anew after the first
        run = clock(partial(step, parallel), options.repeats, device)
        figures[f"ddp_bucket_{mib:g}_mib"] = run
    if dist.get_rank() == 0:
        figures["load_average"] = os.getloadavg()[0]
        print(json.dumps(figures, indent=1))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
