"""nanoGPT's own train.py and this trainer in turn: same tokens, shapes, batch and threads.

    git clone https://github.com/karpathy/nanoGPT ../nanoGPT
    python -m bench.beside_nanogpt ../nanoGPT           # on a CPU, both shapes, three rounds
    python -m bench.beside_nanogpt ../nanoGPT --shape 4x128 --rounds 5 --steps 60

Both train a GPT-2 with biases and without dropout on the bytes of Python's standard library, with
AdamW and clipping. A time is the median over the updates of one process, the first ten left out:
nanoGPT's as it prints it, ours from metrics.jsonl, and each contains the batch, both passes,
clipping and the update. nanoGPT has no bfloat16 and no second process on a CPU; where ours has, it
is a row of its own. The ratio is nanoGPT's time over ours, round by round.
"""

from __future__ import annotations

import argparse
import os
import pickle
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from data import open_split
from record.runlog import read_metrics

ROOT = Path(__file__).parent.parent
VOCABULARY = 257  # bytes and the end of a text
SKIPPED = 10  # updates at the start of each process


@dataclass(frozen=True)
class Shape:
    """One model and its batch."""

    n_layer: int
    n_embd: int
    block_size: int
    n_head: int
    batch_tokens: int = 4096

    @property
    def sequences(self) -> int:
        """Sequences of an update."""
        return self.batch_tokens // self.block_size


SHAPES = {"4x128": Shape(4, 128, 128, 4), "6x384": Shape(6, 384, 256, 6)}
VARIANTS = {  # of ours: processes, flags
    "float32": (1, []),
    "float32, 2 processes": (2, []),
    "float32, compiled": (1, ["--train.compile", "true"]),
    "bfloat16": (1, ["--train.dtype", "bfloat16"]),
    "bfloat16, compiled": (1, ["--train.dtype", "bfloat16", "--train.compile", "true"]),
}


def nanogpt(
    folder: Path, work: Path, shape: Shape, steps: int, threads: int, compiled: bool
) -> float:
    """Milliseconds of an update of nanoGPT."""
    words = {
        "dataset": work / "nanogpt",  # an absolute path takes the place of its data/
        "out_dir": work / "out",
        "device": "cpu",
        "dtype": "float32",
        "compile": compiled,
        "bias": True,
        "n_layer": shape.n_layer,
        "n_head": shape.n_head,
        "n_embd": shape.n_embd,
        "block_size": shape.block_size,
        "batch_size": shape.sequences,
        "gradient_accumulation_steps": 1,
        "max_iters": steps,
        "lr_decay_iters": steps,
        "warmup_iters": 5,
        "eval_iters": 1,
        "eval_interval": 10 * steps,
    }
    flags = [f"--{name}={value}" for name, value in words.items()]
    printed = _run([sys.executable, "train.py", *flags], folder, threads)
    times = [float(ms) for ms in re.findall(r"iter \d+: .* time ([\d.]+)ms", printed)]
    return median(times[SKIPPED:])


def ours(
    work: Path, shape: Shape, steps: int, threads: int, processes: int, flags: list[str]
) -> float:
    """Milliseconds of an update of this trainer."""
    words = {
        "data.dir": work / "tokens",
        "log.dir": work / "runs",
        "log.wandb": "disabled",
        "checkpoint.every": 0,
        "eval.every": steps,
        "eval.tokens": shape.block_size,
        "train.total_steps": steps,
        "train.batch_tokens": shape.batch_tokens,
        "train.micro_batch_size": shape.sequences,
        "model.n_layer": shape.n_layer,
        "model.n_head": shape.n_head,
        "model.n_embd": shape.n_embd,
        "model.block_size": shape.block_size,
    }
    given = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    start = [sys.executable, "-m", "launch", "--nproc", str(processes)]
    command = [*start, "configs/quickstart.toml", *given, *flags]
    before = set((work / "runs").glob("*"))
    _run(command, ROOT, max(1, threads // processes))
    (directory,) = set((work / "runs").glob("*")) - before
    times = [x["time/step_ms"] for x in read_metrics(directory) if "train/loss" in x]
    shutil.rmtree(directory)  # so that the next round trains again
    return median(times[SKIPPED:])


def _run(command: list[str], folder: Path, threads: int) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _tokens(work: Path) -> None:
    """The same tokens in our form and in nanoGPT's."""
    words = [sys.executable, "-m", "data", "stdlib", "--out", str(work / "tokens")]
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (work / "nanogpt").mkdir()
    for split in ("train", "val"):
        tokens = open_split(work / "tokens", split, vocab_size=VOCABULARY)
        np.concatenate(tokens.shards).astype(np.uint16).tofile(work / "nanogpt" / f"{split}.bin")
    with (work / "nanogpt" / "meta.pkl").open("wb") as file:
        pickle.dump({"vocab_size": VOCABULARY}, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nanogpt", type=Path, help="nanoGPT's folder")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="updates in each process")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if not (options.nanogpt / "train.py").is_file():
        parser.error(f"{options.nanogpt} has no train.py: clone karpathy/nanoGPT there")
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__},", end=" ")
    print(f"{options.threads} threads, {options.steps} updates, median ms of an update")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(work / "kernels")  # none of another program
        _tokens(work)
        for name in options.shape or SHAPES:
            _compare(name, options, work)


def _compare(name: str, options: argparse.Namespace, work: Path) -> None:
    """Print the times and ratios of one shape."""
    shape, steps, threads = SHAPES[name], options.steps, options.threads
    times: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for compiled in (False, True):
            label = "nanoGPT, compiled" if compiled else "nanoGPT"
            took = nanogpt(options.nanogpt, work, shape, steps, threads, compiled)
            times.setdefault(label, []).append(took)
        for label, (processes, flags) in VARIANTS.items():
            if processes <= threads:
                took = ours(work, shape, steps, threads, processes, flags)
                times.setdefault(label, []).append(took)
    print(f"\n| {name}, {shape.batch_tokens:,} tokens | ms, by round | nanoGPT's / ours |")
    print("| --- | ---: | ---: |")
    for label, row in times.items():
        peer = times["nanoGPT, compiled" if "compiled" in label else "nanoGPT"]
        ratios = ", ".join(f"{a / b:.2f}" for a, b in zip(peer, row, strict=True))
        shown = "" if label.startswith("nanoGPT") else ratios
        print(f"| {label} | {', '.join(f'{x:.0f}' for x in row)} | {shown} |")


if __name__ == "__main__":
    main()
