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
from optim.core import inside
from record import metrics, runlog, screen
from record.inside import InsideFile

spent, current = [], [0.0, 0.0]

def timed(cls, name, part):
    inner = getattr(cls, name)
    def outer(*args, **kwargs):
        began = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            current[part] += time.perf_counter() - began
            if name == "stepped":
                spent.append(list(current))
                current[:] = 0.0, 0.0
    setattr(cls, name, outer)

timed(metrics.StreamMetrics, "update", 0)
timed(runlog.RunLog, "log", 0)
timed(screen.Screen, "stepped", 0)
for name in ("_watched", "_note", "_over_ranks", "_copied", "_measured"):
    timed(inside.Inside, name, 1)
timed(InsideFile, "log", 1)  # within RunLog.log
code = train_gpt2.main(sys.argv[2:])
if spent:
    np.save(sys.argv[1], spent)
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--nproc", type=int, default=2)
    parser.add_argument("--diagnose", type=int, metavar="N", help="updates between measured ones")
    options = parser.parse_args()
    measured = ["--diagnose.every", str(options.diagnose)] if options.diagnose else []
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
                *["--eval.every", str(options.steps), "--checkpoint.every", "0", *measured],
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )
        (directory,) = (work / "runs").iterdir()
        updates = [x for x in read_metrics(directory) if "train/loss" in x][10:]
        spent, inside = 1e3 * np.load(work / "spent.npy")[10:].T
    step = np.array([x["time/step_ms"] for x in updates])
    wait = np.array([x["time/data_wait_ms"] for x in updates])
    optimizer = np.array([x["time/optimizer_ms"] for x in updates])
    rows = [("step", step), ("  optimizer", optimizer), ("  waiting for data", wait)]
    rows.append(("logging and metrics", spent))
    rows += [("measuring", inside)] if measured else []
    print(f"\n{'per update, ms':22} {'median':>8} {'p99':>8} {'mean':>8}  share of step time")
    for name, values in rows:
        share = 100 * values.sum() / step.sum()
        figures = f"{np.median(values):8.3f} {np.percentile(values, 99):8.3f} {values.mean():8.3f}"
        print(f"{name:22} {figures}  {share:.3f} %")
    print(f"overhead: {100 * (spent.sum() + wait.sum()) / step.sum():.3f} % of step time")


if __name__ == "__main__":
    main()
