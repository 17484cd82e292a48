"""Where the seconds go between a command and the first update of its run.

    python -m bench.startup                            # python -m launch, 2 processes, 5 times
    python -m bench.startup --launcher torchrun --wandb offline

Starts configs/quickstart.toml on the text of `python -m data stdlib` in a temporary folder, and
notes in rank 0 when each stage of the trainer ends. Prints the stages of the quickest start. CPU s
are those of rank 0: they hardly change when the machine has other work. torch imports its compiler
as soon as an optimizer is made, of whatever kind; here that is a stage.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent

# The trainer, with a clock around its stages; nothing else changes.
TRAINER = """
import json, os, sys, time
ends = []

def note(text):
    ends.append((text, time.time(), time.process_time()))

note("Python has started in rank 0")
import torch
note("torch is imported")
import train_gpt2
note("our modules are imported")
import torch._dynamo
note("torch's compiler is imported")
from launch import process, session
from record import screen

def noted(owner, name, text):
    inner = getattr(owner, name)
    def outer(*args, **kwargs):
        result = inner(*args, **kwargs)
        if text not in [end[0] for end in ends]:
            note(text)
        return result
    setattr(owner, name, outer)

noted(train_gpt2, "prepare", "configuration, schedule and tokens are checked")
noted(process.Process, "join", "the ranks have joined")
noted(session, "agreed_hashes", "hashes of the data are compared")
noted(session, "open_record", "the record is open")
noted(train_gpt2, "build", "model and optimizer are built")
noted(train_gpt2, "warm_up", "warm-up pass")
noted(session, "record_launch", "the environment is recorded")
noted(screen.Screen, "evaluated", "first evaluation, of 8,192 tokens")
noted(screen.Screen, "stepped", "first update")
code = train_gpt2.main(sys.argv[2:])
if os.environ["RANK"] == "0":
    with open(sys.argv[1], "w") as file:
        json.dump(ends, file)
sys.exit(code)
"""

OURS = """
import sys
from pathlib import Path
from launch import node
node.TRAINER = Path(sys.argv[1])
sys.exit(node.train(sys.argv[3:], int(sys.argv[2]), 0, 60))
"""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--launcher", choices=("launch", "torchrun"), default="launch")
    parser.add_argument("--nproc", type=int, default=2, metavar="N")
    parser.add_argument("--wandb", choices=("disabled", "offline"), default="disabled")
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "trainer.py").write_text(TRAINER)
        data = [sys.executable, "-m", "data", "stdlib", "--out", str(work / "tokens")]
        subprocess.run(data, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        starts = [started(options, work, i) for i in range(options.repeats)]
    quickest = min(starts, key=lambda stages: stages[-1][1])
    print(f"{'stage':48} {'s':>6} {'CPU s':>6} {'ends at s':>10}")
    before, cpu_before = 0.0, 0.0
    for name, at, cpu in quickest:
        print(f"{name:48} {at - before:6.2f} {cpu - cpu_before:6.2f} {at:10.2f}")
        before, cpu_before = at, cpu
    load = os.getloadavg()[0]
    print(f"the quickest of {options.repeats} starts; load of the machine {load:.1f}")


def started(options: argparse.Namespace, work: Path, number: int) -> list[tuple[str, float, float]]:
    """The stages of one start: name, when it ended in seconds after the command, CPU s so far."""
    words = [str(work / "ends.json"), str(ROOT / "configs/quickstart.toml")]
    words += ["--data.dir", str(work / "tokens"), "--log.dir", str(work / f"runs{number}")]
    words += ["--log.wandb", options.wandb, "--train.total_steps", "1", "--eval.tokens", "8192"]
    if options.launcher == "torchrun":
        command = ["-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc_per_node={options.nproc}", str(work / "trainer.py")]
    else:
        command = ["-c", OURS, str(work / "trainer.py"), str(options.nproc)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began = time.time()
    subprocess.run(
        [sys.executable, *command, *words],
        cwd=ROOT,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ends = json.loads((work / "ends.json").read_text())
    return [(name, at - began, cpu) for name, at, cpu in ends]


if __name__ == "__main__":
    main()
