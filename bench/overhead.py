"""What logging, metrics and waiting for data cost, as a share of the quickstart's step time.

    python -m bench.overhead [--steps 150] [--nproc 2] [--diagnose 10]

Runs configs/quickstart.toml under torchrun with W&B offline, in a temporary folder. The step clock
stops before metrics and logging, so their cost is what is left of the wall time between updates:
time between two lines of metrics.jsonl, less the step itself. The waiting for data is inside the
clock and is logged. With --diagnose N every N-th update is measured (diagnose.every), inside the
step and with one more line of the log: the row "measuring" has both, and its mean and share spread
them over all updates. Evaluations and checkpoints are kept out of the measured part.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.throughput import ROOT, SKIPPED, here
from record.runlog import read_metrics

# The trainer, with a clock around what follows the step clock; nothing else changes. Rank 0 tells.
TRAINER = """
import json, os, sys, time
import train_gpt2
from launch import session
from optim.core import inside
from record import metrics, runlog, screen
from record.inside import InsideFile

spent, current, pauses = [], [0.0, 0.0], []

def timed(owner, name, note):
    inner = getattr(owner, name)
    def outer(*args, **kwargs):
        began = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            note(time.perf_counter() - began)
    setattr(owner, name, outer)

def beside(seconds):
    current[0] += seconds

def measuring(seconds):
    current[1] += seconds

def last(seconds):
    spent.append([current[0] + seconds, current[1]])
    current[:] = 0.0, 0.0

timed(metrics.StreamMetrics, "update", beside)
timed(runlog.RunLog, "log", beside)
timed(screen.Screen, "stepped", last)
for name in ("_watched", "_note", "_over_ranks", "_copied", "_measured"):
    timed(inside.Inside, name, measuring)
timed(InsideFile, "log", measuring)  # within RunLog.log
timed(session, "save_checkpoint", pauses.append)
code = train_gpt2.main(sys.argv[2:])
if os.environ.get("RANK", "0") == "0":
    with open(sys.argv[1], "w") as file:
        json.dump({"spent": spent, "pauses": pauses}, file)
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--nproc", type=int, default=2)
    parser.add_argument("--diagnose", type=int, metavar="N", help="updates between measured ones")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here([sys.executable, "-m", "data", "stdlib", "--out", f"{folder}/tokens"])
        words = ["configs/quickstart.toml", "--data.dir", f"{folder}/tokens"]
        words += ["--log.wandb", "offline", "--checkpoint.every", "0"]
        words += ["--diagnose.every", str(options.diagnose)] if options.diagnose else []
        found = measured(words, options.steps, options.nproc)
    step = found["step"]
    print(f"\n{'per update, ms':22} {'median':>8} {'p99':>8} {'mean':>8}  share of step time")
    labels = {"optimizer": "  optimizer", "waiting for data": "  waiting for data"}  # in the step
    rows = ["step", *labels, "logging and metrics", *(["measuring"] if options.diagnose else [])]
    for name in rows:
        values = found[name]
        share = 100 * values.sum() / step.sum()
        figures = f"{np.median(values):8.3f} {np.percentile(values, 99):8.3f} {values.mean():8.3f}"
        print(f"{labels.get(name, name):22} {figures}  {share:.3f} %")
    print(f"overhead: {overhead(found):.3f} % of step time")


def measured(
    words: Sequence[str],
    steps: int,
    nproc: int = 1,
    start: Callable[[Sequence[str]], object] = here,
) -> dict[str, Any]:
    """Milliseconds, by name, of each update; and of each "checkpoint" but the last.

    words: files and flags of the trainer. start: runs a command, with this project on its path.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={nproc}"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{TRAINER}"
        (work / "trainer.py").write_text(program)
        start(
            [
                *[sys.executable, *(torchrun if nproc > 1 else []), str(work / "trainer.py")],
                *[str(work / "spent.json"), *words, "--log.dir", str(work / "runs")],
                *["--train.total_steps", str(steps), "--eval.every", str(steps)],
            ]
        )
        (directory,) = (work / "runs").iterdir()
        updates = [x for x in read_metrics(directory) if "train/loss" in x][SKIPPED:]
        clocks = json.loads((work / "spent.json").read_text())
    columns = {"step": "step", "optimizer": "optimizer", "waiting for data": "data_wait"}
    found = {n: np.array([x[f"time/{key}_ms"] for x in updates]) for n, key in columns.items()}
    beside, inside = 1e3 * np.array(clocks["spent"])[SKIPPED:].T
    found |= {"logging and metrics": beside, "measuring": inside}
    found["checkpoint"] = 1e3 * np.array(clocks["pauses"])[:-1]
    return found


def overhead(found: dict[str, Any]) -> float:
    """Logging, metrics and waiting for data, in percent of the steps' time."""
    beside = found["logging and metrics"].sum() + found["waiting for data"].sum()
    return float(100 * beside / found["step"].sum())


if __name__ == "__main__":
    main()
