"""What each wrapper adds to the step of an optimizer, in time and in memory.

    python -m bench.wrappers [NAME] [--size 124M] [--steps 7] [--cpu-time]

The parameters of a GPT-2 with gradients in place, as in bench.optimizer_step. Steps with one
wrapper around the optimizer are timed in turn with plain steps on the same parameters, and the
fastest of each are compared, since another program on the machine slows both. --cpu-time with
OMP_NUM_THREADS=1 counts the seconds that the process was at work.
"""

from __future__ import annotations

import argparse
import gc
import time
from typing import Any

import torch

from bench.optimizer_step import SIZES, parameters, tensors
from optim import build_optimizer, optimizer_state_bytes

TABLES: dict[str, dict[str, Any]] = {
    "momentum_schedule": {"warmup_steps": 1000, "cooldown_steps": 0},
    "decay": {"scale": "lr_squared"},
    "decay, cautious": {"cautious": True},
    "hyperball": {},
    "outer_nesterov": {"every": 1},  # each step is one with an outer step
    "ema": {},
    "lawa": {"last": 2, "every": 1},  # each step takes a copy
    "tail": {"start": 0},
    "ema_nesterov": {"start": 0},
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.wrappers", description=__doc__)
    parser.add_argument("name", nargs="?", default="adamw", help="the optimizer inside")
    parser.add_argument("--size", choices=SIZES, default="124M")
    parser.add_argument("--steps", type=int, default=7, help="of each, in turn")
    parser.add_argument("--cpu-time", action="store_true", help="of the process, not the wall's")
    options = parser.parse_args(arguments)
    clock = time.process_time if options.cpu_time else time.perf_counter
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    groups = parameters(options.size, device)
    count = sum(p.numel() for p in tensors(groups))
    print(f"{'wrapper':<20}{'plain ms':>10}{'ms':>10}{'ratio':>8}{'state B/parameter':>20}")
    for label, table in TABLES.items():
        gc.collect()
        wrap = {label.partition(",")[0]: table}
        decay = 0.0 if label == "hyperball" else 0.1
        plain, wrapped = (
            build_optimizer(options.name, groups, lr=1e-9, weight_decay=decay, wrap=each)
            for each in ({}, wrap)
        )
        seconds: dict[str, list[float]] = {"plain": [], "wrapped": []}
        for step in range(options.steps + 2):
            for key, optimizer in (("plain", plain), ("wrapped", wrapped)):
                optimizer.check_gradients = False
                began = clock()
                optimizer.step()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if step >= 2:
                    seconds[key].append(clock() - began)
        base, own = min(seconds["plain"]), min(seconds["wrapped"])
        state = (optimizer_state_bytes(wrapped) - optimizer_state_bytes(plain)) / count
        ms = f"{1e3 * base:>10.1f}{1e3 * own:>10.1f}"
        print(f"{label:<20}{ms}{own / base:>8.2f}{state:>20.3g}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
