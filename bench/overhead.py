"""What logging, metrics and waiting for data cost, as a share of the quickstart's step time.

    python -m bench.overhead [--steps 150] [--nproc 2]

Runs configs/quickstart.toml under torchrun with W&B offline, in a temporary folder. The step clock
stops before metrics and logging, so their cost is what is left of the wall time between updates:
time between two lines of metrics.jsonl, less the step itself. The waiting for data is inside the
clock and is logged. Evaluations and checkpoints are kept out of the measured part.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from record.runlog import read_metrics

ROOT = Path(__file__).parent.parent

# Each rank's trainer, with a clock around what follows the step clock; nothing else changes.
TRAINER = """
import atexit, sys, time
import numpy as np
import train_gpt2
from record import metrics, runlog, screen

spent, current = [], [0.0]

def timed(cls, name):
    inner = getattr(cls, name)
    def outer(*args, **kwargs):
        began = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            current[0] += time.perf_counter() - began
            if name == "stepped":
                spent.append(current[0])
                current[0] = 0.0
    setattr(cls, name, outer)

timed(metrics.StreamMetrics, "update")
timed(runlog.RunLog, "log")
timed(screen.Screen, "stepped")
code = train_gpt2.main(sys.argv[2:])
if spent:
    np.save(sys.argv[1], spent)
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--nproc", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "trainer.py").write_text(TRAINER)
        data = work / "tokens"
        subprocess.run(
            [sys.executable, "-m", "data", "stdlib", "--out", data], cwd=ROOT, check=True
        )
        subprocess.run(
            [
                *[sys.executable, "-m", "torch.distributed.run", "--standalone"],
                *[f"--nproc_per_node={options.nproc}", str(work / "trainer.py")],
                *[str(work / "spent.npy"), "configs/quickstart.toml"],
                *["--data.dir", str(data), "--log.dir", str(work / "runs")],
                *["--log.wandb", "offline", "--train.total_steps", str(options.steps)],
                *["--eval.every", str(options.steps), "--checkpoint.every", "0"],
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )
        (directory,) = (work / "runs").iterdir()
        updates = [x for x in read_metrics(directory) if "train/loss" in x][10:]
        spent = 1e3 * np.load(work / "spent.npy")[10:]
    step = np.array([x["time/step_ms"] for x in updates])
    wait = np.array([x["time/data_wait_ms"] for x in updates])
    optimizer = np.array([x["time/optimizer_ms"] for x in updates])
    rows = [("step", step), ("  optimizer", optimizer), ("  waiting for data", wait)]
    rows.append(("logging and metrics", spent))
    print(f"\n{'per update, ms':22} {'median':>8} {'p99':>8} {'mean':>8}  share of step time")
    for name, values in rows:
        share = 100 * values.sum() / step.sum()
        figures = f"{np.median(values):8.3f} {np.percentile(values, 99):8.3f} {values.mean():8.3f}"
        print(f"{name:22} {figures}  {share:.3f} %")
    print(f"overhead: {100 * (spent.sum() + wait.sum()) / step.sum():.3f} % of step time")


if __name__ == "__main__":
    main()
