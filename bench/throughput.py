"""Tokens per second, MFU and peak memory of the trainer on this machine, on synthetic shards.

    python -m bench.throughput                                   # GPT-2 124M, all GPUs, 50 updates
    python -m bench.throughput --steps 50 -- --train.micro_batch_size 32
    python -m bench.throughput --config configs/quickstart.toml --nproc 2   # a CPU

Starts the real trainer (under torchrun, if there are several processes) in a temporary folder,
without W&B, and reads the record it leaves. The first ten updates are left out of the figures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs import Config, load
from data.formats import write_shard
from record.runlog import read_metrics, read_record

ROOT = Path(__file__).parent.parent
SKIPPED = 10  # updates at the start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/gpt2_124m.toml")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--nproc", type=int, default=max(1, torch.cuda.device_count()))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("words", nargs="*", help="after --: files and flags for the trainer")
    options = parser.parse_args()
    figures = measured([options.config, *options.words], options.steps, options.nproc)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def here(command: Sequence[str]) -> object:
    """Run a command in the checkout."""
    return subprocess.run(command, cwd=ROOT, check=True)


def measured(
    words: Sequence[str],
    steps: int,
    nproc: int = 1,
    *,
    program: Sequence[str] = ("train_gpt2.py",),
    start: Callable[[Sequence[str]], object] = here,
    skipped: int = SKIPPED,
) -> dict[str, Any]:
    """Train with `words` for `steps` updates on random tokens; returns the figures.

    words: files and flags of the trainer. program: what Python starts instead of the trainer.
    start: runs a command. skipped: updates at the start that do not count.
    """
    config = load(words)
    batch, tokens = config.train.batch_tokens, config.model.block_size * 64
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_tokens(work, config, {"train": 4 * batch, "val": 2 * tokens})
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={nproc}"]
        start(
            [
                *[sys.executable, *(torchrun if nproc > 1 else []), *program, *words],
                *["--data.dir", str(work), "--log.dir", str(work / "runs")],
                *["--log.wandb", "disabled", "--train.total_steps", str(steps)],
                *["--eval.every", str(steps), "--checkpoint.every", "0"],
                *["--eval.tokens", str(tokens)],
            ]
        )
        (directory,) = (work / "runs").iterdir()
        updates = [x for x in read_metrics(directory) if "train/loss" in x][skipped:]
        record = read_record(directory)
    assert record, "the trainer has ended well, so there is a record"
    environment = record["launches"][-1]["environment"]
    step = np.array([x["time/step_ms"] for x in updates])
    return {
        "device": environment["device"] if environment["device"] != "cpu" else environment["cpu"],
        "processes": nproc,
        "torch": environment["versions"]["torch"],
        "dtype": environment["dtype"],
        "attention": environment["attention"],
        "batch_tokens": batch,
        "step_ms_median": float(np.median(step)),
        "step_ms_p99": float(np.percentile(step, 99)),
        "optimizer_ms_median": float(np.median([x["time/optimizer_ms"] for x in updates])),
        "data_wait_ms_median": float(np.median([x["time/data_wait_ms"] for x in updates])),
        "tokens_per_second": 1e3 * batch / float(np.median(step)),
        "mfu_median": float(np.median([x["mfu"] for x in updates])) if updates[0]["mfu"] else None,
        "peak_memory_gib": updates[-1]["memory/peak_gib"],
        "warm_up_seconds": environment["warm_up_seconds"],
        "last_loss": updates[-1]["train/loss"],
    }


def write_tokens(folder: Path, config: Config, tokens: dict[str, int]) -> None:
    """Shards of random tokens of the model's vocabulary, so many for each split."""
    rng = np.random.default_rng(0)
    for split, count in tokens.items():
        ids = rng.integers(config.model.vocab_size, size=count + 1, dtype=np.uint16)
        write_shard(folder / f"synthetic_{split}_000000.bin", ids)


if __name__ == "__main__":
    main()
