"""The memory of a training step: counted (configs/size.py) beside measured.

    python -m bench.memory                                 # two shapes that fit a small machine
    python -m bench.memory --sizes 124M --rows 4
    python -m bench.memory --device cuda --sizes 124M 350M 774M 1558M

Each row is a process of its own: model, AdamW, two micro-batches, one update, then the same once
more. Measured: on a GPU the most that torch has allocated; on a CPU the growth of resident memory,
over a process that has done the same with one block of width 64.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from bench.scaling import table
from configs import Model
from configs.size import GIB, memory
from train_gpt2 import GPT

ROOT = Path(__file__).parent.parent
KEYS = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")
SIZES = {
    "10M": (8192, 256, 6, 5, 320),
    "30M": (50257, 512, 6, 6, 384),
    "124M": (50257, 1024, 12, 12, 768),
    "350M": (50257, 1024, 24, 16, 1024),
    "774M": (50257, 1024, 36, 20, 1280),
    "1558M": (50257, 1024, 48, 25, 1600),
}
ROWS = {"10M": 16, "30M": 8, "124M": 64, "350M": 32, "774M": 16, "1558M": 8}


def shape_of(size: str) -> Model:
    """The model of a row."""
    return Model.model_validate(dict(zip(KEYS, SIZES[size], strict=True)))


def step(model: GPT, optimizer: Any, called: Any, rows: int, dtype: str, device: str) -> None:
    """Two micro-batches and an update."""
    tokens = torch.zeros(rows, model.shape.block_size, dtype=torch.int64, device=device)
    for _ in range(2):
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = called(tokens, tokens)
        loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def train(shape: Model, rows: int, dtype: str, recomputes: bool, device: str) -> None:
    """Two updates of a model."""
    model = GPT.initialised(shape, 1).to(device)
    model.recomputes = recomputes
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    called = torch.compile(model, dynamic=False) if device == "cuda" else model
    for _ in range(2):
        step(model, optimizer, called, rows, dtype, device)


def measured(size: str, rows: int, dtype: str, recomputes: bool, device: str) -> int:
    """Bytes that the updates took at most, in this process."""
    tiny = Model(vocab_size=64, block_size=32, n_layer=1, n_head=1, n_embd=64)
    train(tiny, 2, dtype, recomputes, device)  # loads what is loaded once
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        train(shape_of(size), rows, dtype, recomputes, device)
        return torch.cuda.max_memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _resident("VmRSS")
    train(shape_of(size), rows, dtype, recomputes, device)
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def row(size: str, rows: int, dtype: str, recomputes: bool, device: str) -> list[str]:
    """A row of the table, of a process of its own."""
    words = ["--one", size, dtype, str(recomputes), "--rows", str(rows), "--device", device]
    command = [sys.executable, "-m", "bench.memory", *words]
    # without it, glibc keeps freed blocks, and resident memory shows the gaps
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    output = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
    counted = memory(
        shape_of(size),
        rows,
        8,
        bfloat16=dtype == "bfloat16",
        compiled=device == "cuda",
        checkpointing=recomputes,
    ).total
    found = int(output)
    cells = [f"{counted / GIB:.2f}", f"{found / GIB:.2f}", f"{found / counted:.2f}"]
    return [size, str(rows), dtype, "yes" if recomputes else "no", *cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["10M", "30M"])
    parser.add_argument("--rows", type=int, help="sequences of a micro-batch; default: for 80 GB")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        size, dtype, recomputes = options.one
        print(measured(size, options.rows, dtype, recomputes == "True", options.device))
        return
    head = ["size", "sequences", "dtype", "blocks run again", "counted, GiB", "measured", "ratio"]
    dtypes = ["bfloat16"] if options.device == "cuda" else ["float32", "bfloat16"]
    rows = [
        row(size, options.rows or ROWS[size], dtype, recomputes, options.device)
        for size in options.sizes
        for dtype in dtypes
        for recomputes in (False, True)
    ]
    print(table(head, rows))


if __name__ == "__main__":
    main()
