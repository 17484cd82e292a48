"""Tokens per second, MFU and peak memory of the trainer on this machine, on synthetic shards.

    python -m bench.throughput                                   # GPT-2 124M, all GPUs, 50 updates
    python -m bench.throughput --steps 50 -- --train.micro_batch_size 32
    python -m bench.throughput --config configs/quickstart.toml --nproc 2   # a CPU

Starts the real trainer under torchrun in a temporary folder, without W&B, and reads the record it
leaves. The first ten updates are left out of the figures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import torch

from data.shards import write_shard
from record.runlog import read_metrics, read_record

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/gpt2_124m.toml")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--nproc", type=int, default=max(1, torch.cuda.device_count()))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("flags", nargs="*", help="after --: overrides for the trainer")
    options = parser.parse_args()
    table = tomllib.loads((ROOT / options.config).read_text())
    shape, batch = table["model"], table["train"]["batch_tokens"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rng = np.random.default_rng(0)
        for split, tokens in (("train", 4 * batch), ("val", 2 * shape["block_size"] * 64)):
            ids = rng.integers(shape["vocab_size"], size=tokens + 1, dtype=np.uint16)
            write_shard(work / f"synthetic_{split}_000000.bin", ids)
        subprocess.run(
            [
                *[sys.executable, "-m", "torch.distributed.run", "--standalone"],
                *[f"--nproc_per_node={options.nproc}", "train_gpt2.py", options.config],
                *["--data.dir", str(work), "--log.dir", str(work / "runs")],
                *["--log.wandb", "disabled", "--train.total_steps", str(options.steps)],
                *["--eval.every", str(options.steps), "--checkpoint.every", "0"],
                *["--eval.tokens", str(shape["block_size"] * 64), *options.flags],
            ],
            cwd=ROOT,
            check=True,
        )
        (directory,) = (work / "runs").iterdir()
        updates = [x for x in read_metrics(directory) if "train/loss" in x][10:]
        record = read_record(directory)
    assert record, "the trainer has ended well, so there is a record"
    environment = record["launches"][-1]["environment"]
    step = np.array([x["time/step_ms"] for x in updates])
    figures = {
        "device": environment["device"] if environment["device"] != "cpu" else environment["cpu"],
        "processes": options.nproc,
        "torch": environment["versions"]["torch"],
        "dtype": environment["dtype"],
        "batch_tokens": batch,
        "step_ms_median": float(np.median(step)),
        "step_ms_p99": float(np.percentile(step, 99)),
        "optimizer_ms_median": float(np.median([x["time/optimizer_ms"] for x in updates])),
        "data_wait_ms_median": float(np.median([x["time/data_wait_ms"] for x in updates])),
        "tokens_per_second": 1e3 * batch / float(np.median(step)),
        "mfu_median": float(np.median([x["mfu"] for x in updates])) if updates[0]["mfu"] else None,
        "peak_memory_gib": updates[-1]["memory/peak_gib"],
        "warm_up_seconds": environment["warm_up_seconds"],
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
