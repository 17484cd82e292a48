"""What a checkpoint costs: how long training stops for it, and the memory of a resume.

    python -m bench.checkpoints                       # GPT-2 124M with short contexts, one process
    python -m bench.checkpoints --config configs/quickstart.toml --tokens 1024

Runs the trainer twice in a temporary folder: with checkpoints that are written while it goes on,
and with checkpoints that it waits for. Then two processes resume the first run. A pause is what
`save_checkpoint` takes; the last one, which is always waited for, is left out. Beside it stands a
plain copy of as many bytes between two places in memory that are in use already.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.throughput import write_tokens
from configs import load
from contest.job import python_path
from record import checkpoints

ROOT = Path(__file__).parent.parent

# The trainer, with a clock around what a checkpoint does; nothing else changes.
TRAINER = """
import json, sys, time
import train_gpt2
from launch import session
from record import checkpoints, runlog, writer

spans = {"pause": [], "copy": [], "write": [], "update": []}

def timed(owner, name, into):
    inner = getattr(owner, name)
    def outer(*args, **kwargs):
        began = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            spans[into].append((began, time.perf_counter()))
    setattr(owner, name, outer)

def log(self, step, values, *rest):
    if "train/loss" in values:
        now = time.perf_counter()
        spans["update"].append((now - values["time/step_ms"] / 1e3, now))
    logged(self, step, values, *rest)

timed(session, "save_checkpoint", "pause")
timed(writer._Copies, "of", "copy")
timed(checkpoints, "save", "write")
logged, runlog.RunLog.log = runlog.RunLog.log, log
code = train_gpt2.main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump(spans, file)
sys.exit(code)
"""

# A rank that resumes, and the most memory that it has held until its state is complete.
RESUME = """
import sys, threading
import train_gpt2

most, complete, build = {}, threading.Event(), train_gpt2.build

def watch():
    while not complete.wait(0.002):
        for line in open("/proc/self/status"):
            key, _, rest = line.partition(":")
            if key.startswith("Rss") or key == "VmRSS":
                most[key] = max(most.get(key, 0), int(rest.split()[0]) / 2**20)

def watched(*given):
    state = build(*given)
    complete.set()
    text = f"{most['VmRSS']:.2f} GiB, of it {most['RssAnon']:.2f} its own and"
    print(f"rank {given[0].process.rank}: {text} {most['RssFile']:.2f} of files", flush=True)
    return state

train_gpt2.build = watched
threading.Thread(target=watch, daemon=True).start()
sys.exit(train_gpt2.main(sys.argv[1:]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/gpt2_124m.toml")
    parser.add_argument("--tokens", type=int, default=256, help="of an update")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--every", type=int, default=6, help="updates between checkpoints")
    parser.add_argument("--checkpoints", type=int, default=4, help="before the last one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work, steps = Path(folder), options.every * (options.checkpoints + 1)
        arguments = [
            *[options.config, "--data.dir", str(work), "--log.wandb", "disabled"],
            *["--model.block_size", str(options.context), "--eval.tokens", str(options.context)],
            *["--train.batch_tokens", str(options.tokens), "--train.micro_batch_size", "1"],
            *["--train.total_steps", str(steps), "--eval.every", str(steps)],
            *["--checkpoint.every", str(options.every)],
        ]
        tokens = {"train": options.tokens * 8, "val": options.context}
        write_tokens(work, load(arguments), tokens)
        for way, flag in (("background", "true"), ("waiting", "false")):
            flags = ["--checkpoint.background", flag, "--log.dir", str(work / way)]
            run(work, TRAINER, [str(work / "spans.json"), *arguments, *flags])
            report(way, json.loads((work / "spans.json").read_text()))
        (directory,) = (work / "background").iterdir()
        newest, before = checkpoints.found(directory / "checkpoints")[:2]
        size = newest.stat().st_size
        print(f"a plain copy of {size / 2**30:.2f} GiB: {copy_seconds(size):.2f} s")
        newest.unlink()
        (directory / "summary.json").unlink()
        print(f"two processes resume from step {checkpoints.step_of(before)}; the most memory:")
        print(run(work, RESUME, [*arguments, "--log.dir", str(work / "background")], nproc=2))


def run(work: Path, program: str, arguments: list[str], nproc: int = 1) -> str:
    """Lines that the program has printed of ranks."""
    (work / "program.py").write_text(program)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, f"--nproc_per_node={nproc}", str(work / "program.py"), *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": python_path()},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("rank "))


def report(way: str, spans: dict[str, list[tuple[float, float]]]) -> None:
    """Print one line for each kind of span; the last checkpoint is left out."""
    writes = spans["write"][:-1]
    busy = [any(a < y and x < b for a, b in writes) for x, y in spans["update"]]
    seconds = {name: np.array([b - a for a, b in spans[name]]) for name in spans}
    rows: list[tuple[str, Any]] = [
        ("pause for a checkpoint, the first", seconds["pause"][:1]),
        ("pause for a checkpoint, later", seconds["pause"][1:-1]),
        ("  of it the copy", seconds["copy"][1:]),
        ("write", seconds["write"][:-1]),
        ("update", seconds["update"][~np.array(busy)][1:]),
        ("update while a checkpoint is written", seconds["update"][np.array(busy)]),
    ]
    print(f"\n{way + ', seconds':40} {'least':>8} {'median':>8} {'most':>8}    n")
    for name, values in rows:
        if len(values):
            figures = f"{values.min():8.3f} {np.median(values):8.3f} {values.max():8.3f}"
            print(f"{name:40} {figures} {len(values):4}")


def copy_seconds(size: int) -> float:
    """The least of five copies."""
    source, target = (torch.zeros(size, dtype=torch.uint8).fill_(1) for _ in range(2))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
