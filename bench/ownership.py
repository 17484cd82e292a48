"""What ranks save when they share an optimizer's work (optim/core/ownership.py), at GPT-2 124M.

    python -m bench.ownership                                   # counted, for 1 to 64 ranks
    torchrun --standalone --nproc_per_node=2 -m bench.ownership --measure adamw muon

Counted: the state of the rank that keeps most, the floating-point operations of the matrix products
and decompositions of the rank that does most, mean of ten updates after the first, and the time to
send the parameters. Steps run on tensors without data, so all is exact but the decompositions,
which are counted by formula: 4 n^3 for a QR with its factor, 9 n^3 for eigenvectors, 20 n^3 for a
singular value decomposition (Golub & Van Loan, Matrix Computations, sections 5.2, 8.3, 8.6).
Measured: seconds of an update with and without sharing, best of the repetitions.
"""

from __future__ import annotations

import argparse
import os
import time
import tomllib

import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from bench.scaling import LINKS, PEAKS, ROOT, hierarchical, milliseconds, table
from configs import load
from optim import build_optimizer, optimizer_state_bytes
from optim.core.base import Optimizer
from optim.core.ownership import Owned
from train_gpt2 import GPT

RANKS = (1, 2, 4, 8, 64)
NAMES = ("adamw", "muon", "soap", "shampoo")
MATMUL = 0.4 * PEAKS["H100/H200"]  # FLOP/s in bfloat16, at 40 % of the peak
MEMORY = 0.8 * 3.35e12  # bytes/s of an H100
ADAMW_BYTES = 28  # that an element-wise update moves for a parameter
STEPS = 11


def _cube(factor: float):  # type: ignore[no-untyped-def]
    def flops(shape, *_, out_shape=None, **__):  # type: ignore[no-untyped-def]
        *batch, m, n = shape
        return int(factor * m * n * min(m, n) * torch.Size(batch).numel())

    return flops


DECOMPOSITIONS = {
    torch.ops.aten.linalg_qr: _cube(4),
    torch.ops.aten._linalg_eigh: _cube(9),
    torch.ops.aten._linalg_svd: _cube(20),
}


def built(name: str, device: str) -> tuple[GPT, Optimizer]:
    """GPT-2 124M, and the optimizer of a preset over it."""
    preset = tomllib.loads((ROOT / f"configs/optimizer/{name}.toml").read_text())["optimizer"]
    with torch.device(device):
        model = GPT(load([str(ROOT / "configs/gpt2_124m.toml")]).model)
        optimizer = build_optimizer(
            preset.pop("name"), model.parameter_groups(), total_steps=1000, **preset
        )
    optimizer.check_gradients = False
    optimizer.compile = False  # type: ignore[attr-defined]
    return model, optimizer


def counted(name: str, rank: int, ranks: int) -> tuple[int, float, float]:
    """Of one rank: bytes of state, matrix FLOPs of an update, and elements that it updates."""
    model, optimizer = built(name, "meta")
    owned = Owned(optimizer, rank, ranks)
    elements = 0
    for p in model.parameters():
        if p not in optimizer.elsewhere:
            p.grad = torch.empty_like(p)
            elements += p.numel()
    optimizer.step()
    counter = FlopCounterMode(display=False, custom_mapping=DECOMPOSITIONS)
    with counter:
        for _ in range(STEPS - 1):
            optimizer.step()
    return optimizer_state_bytes(owned), counter.get_total_flops() / (STEPS - 1), elements


def _busiest(name: str, ranks: int) -> set[int]:
    """Ranks among which are those with most work, elements and state: of many ranks, two."""
    if ranks <= 8:
        return set(range(ranks))
    _, optimizer = built(name, "meta")
    sizes = [float(p.numel()) for group in optimizer.param_groups for p in group["params"]]
    owners, busiest = Owned(optimizer, 0, ranks).owners, set()
    for weights in (optimizer.update_costs(), sizes):
        loads = [0.0] * ranks
        for owner, weight in zip(owners, weights, strict=True):
            loads[owner] += weight
        busiest.add(loads.index(max(loads)))
    return busiest


def counted_row(name: str, ranks: int) -> list[str]:
    """Most state and work of a rank: MiB, TFLOP, million elements, ms; ms to send parameters."""
    found = [counted(name, rank, ranks) for rank in _busiest(name, ranks)]
    held, flops, elements = (max(values) for values in zip(*found, strict=True))
    work = max(f / MATMUL + ADAMW_BYTES * n / MEMORY for _, f, n in found)
    sizes = [p.numel() for p in built("adamw", "meta")[0].parameters()]
    sent = hierarchical(4 * sum(sizes), ranks, LINKS[2]) / 2  # a broadcast is half an all-reduce
    cells = [f"{held / 2**20:,.0f}", f"{flops / 1e12:.3f}", f"{elements / 1e6:.1f}"]
    return [name, str(ranks), *cells, milliseconds(work), milliseconds(sent)]


def counted_table() -> str:
    """A row for each optimizer and number of ranks."""
    head = ["124M", "ranks", "state, MiB", "TFLOP", "elements, M", "update, ms", "sending, ms"]
    return table(head, [counted_row(name, ranks) for name in NAMES for ranks in RANKS])


def measure(names: list[str], repeats: int) -> str:
    """Best seconds of an update on this machine's processes, with and without sharing."""
    dist.init_process_group("gloo")
    rank, ranks, rows = dist.get_rank(), dist.get_world_size(), []
    for name in names:
        best = {}
        for shares in (False, True):
            model, optimizer = built(name, "cpu")
            used = Owned(optimizer, rank, ranks) if shares and ranks > 1 else optimizer
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
            seconds = []
            for _ in range(repeats + 1):
                dist.barrier()
                began = time.perf_counter()
                used.step()
                dist.barrier()
                seconds.append(time.perf_counter() - began)
            best[shares] = min(seconds[1:])
            del model, optimizer, used
        rows.append([name, str(ranks), f"{best[False]:.2f}", f"{best[True]:.2f}"])
    load_average = os.getloadavg()[0]
    dist.barrier()
    dist.destroy_process_group()
    if rank:
        return ""
    return table(["124M, s", "ranks", "all on each", "shared"], rows) + f"\nload {load_average:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", nargs="+", metavar="NAME", help="under torchrun: these")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    text = measure(options.measure, options.repeats) if options.measure else counted_table()
    if text:
        print(text)


if __name__ == "__main__":
    main()
