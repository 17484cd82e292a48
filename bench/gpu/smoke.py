"""Does everything run on this device, and does it equal its reference?

Each row is one check: what, what was expected, what was found.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.gpu.part import ROOT, TINY, Part, Row, Settings, check, finished, flags, run
from bench.gpu.reference import against_reference
from configs import Model
from launch import attention
from optim import OPTIMIZERS
from record.checkpoints import found as checkpoints
from record.checkpoints import step_of
from record.hardware import version
from record.runlog import read_metrics, read_record

TABLE = "check"
STEPS, EVERY = 60, 20  # updates of a run, and between its checkpoints
KILLED_AT, STOPPED_AT = 30, 45  # updates
SHORT = 8  # updates of a run that is compared with another
# Of losses near 5 nats, between equal runs on a GPU, whose kernels add in an order of their own.
ROUNDING = 0.02
OF_A_RUN = 0.1  # sixty updates, each of which adds in another order


def measure(settings: Settings, part: Part) -> None:
    """The machine, training and resuming, compiling and precision, then every optimizer."""
    runs = _Runs(settings)
    part.rows(TABLE, "machine", lambda: list(_machine(settings)))
    part.rows(TABLE, "train", lambda: list(runs.trained()))
    part.rows(TABLE, "kill and resume", lambda: list(runs.resumed()))
    part.rows(TABLE, "compile", lambda: list(runs.compiled()))
    part.rows(TABLE, "precision", lambda: list(runs.precisions()))
    if settings.device == "cuda":
        part.rows(TABLE, "CUDA against CPU", lambda: list(runs.against_cpu()))
    title = "three steps in float32, against float64 on the CPU"
    for name in OPTIMIZERS:
        part.rows(title, name, partial(against_reference, name, settings.device))
    part.rows(TABLE, "tests marked gpu", lambda: [_tests(settings)])


def _machine(settings: Settings) -> Iterator[Row]:
    """What the rest relies on."""
    device = torch.device(settings.device)
    x = torch.arange(1024, dtype=torch.float64, device=device).view(32, 32)
    found = float((x @ x.mT).trace())
    expected = sum(i * i for i in range(1024))
    yield check("a product in float64", f"{expected}", f"{found:.0f}", found == expected)
    if settings.device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        yield check("bfloat16 in hardware", "yes", "yes" if native else "no", native)
        wanted = attention.kernels(torch.cuda.get_device_capability())[0].name.lower()
        shape = Model(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768)
        with attention.preferred(device, shape.block_size):
            taken = attention.taken(shape, "bfloat16", device)
        yield check("attention's kernel at 124M", wanted, taken, taken == wanted)


class _Runs:
    """Runs of the trainer on the text that every machine has."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def words(self, folder: str, **changed: Any) -> list[str]:
        """The command of a run in a folder of its own; changed: keys, of [train] or whole ones."""
        values: dict[str, Any] = {
            "data.dir": self.settings.work / "tokens",
            "log.dir": self.settings.work / folder,
            "log.wandb": "disabled",
            "train.total_steps": STEPS,
            "train.device": self.settings.device,
            "eval.every": EVERY,
            "checkpoint.every": EVERY,
        }
        values |= {k if "." in k else f"train.{k}": value for k, value in changed.items()}
        tiny = TINY | {"train.batch_tokens": 2048}  # steps that a signal can hit
        words = flags({**tiny, **values} if self.settings.tiny else values)
        return ["train_gpt2.py", "configs/quickstart.toml", *words]

    def fresh(self, folder: str, **changed: Any) -> Path:
        """Train anew to the end; returns the run's folder."""
        shutil.rmtree(self.settings.work / folder, ignore_errors=True)
        run([sys.executable, *self.words(folder, **changed)])
        return _only(self.settings.work / folder)

    def trained(self) -> Iterator[Row]:
        """One run, and what it must leave."""
        self.settings.tokens()
        directory = self.fresh("train")
        summary, losses = finished(directory), _losses(directory)
        first, last = summary["initial_val_loss"], summary["final_val_loss"]
        uniform = math.log(257)
        yield check("updates recorded", str(STEPS), len(losses), len(losses) == STEPS)
        near = abs(first - uniform) < 0.3
        yield check("val loss at the start", f"{uniform:.3f}, to 0.3", f"{first:.3f}", near)
        yield check("val loss at the end", "below 4.5", f"{last:.3f}", last < 4.5)
        steps = [step_of(path) for path in checkpoints(directory / "checkpoints")]
        yield check("checkpoints, newest first", str([60, 40]), steps, steps == [60, 40])
        record = read_record(directory) or {}
        name = record["launches"][-1]["environment"]["device"]
        cuda = self.settings.device == "cuda"
        here = torch.cuda.get_device_name() if cuda else "cpu"
        yield check("device in the record", here, name, name == here)

    def resumed(self) -> Iterator[Row]:
        """A run that is killed, resumed, stopped by a signal and resumed, against the first."""
        folder, words = self.settings.work / "resume", self.words("resume")
        shutil.rmtree(folder, ignore_errors=True)
        killed = _interrupt(words, folder, KILLED_AT, signal.SIGKILL)
        directory = _only(folder)
        before, start = _losses(directory), step_of(checkpoints(directory / "checkpoints")[0])
        yield check("exit code after SIGKILL", "-9", killed, killed == -signal.SIGKILL)
        stopped = _interrupt(words, folder, STOPPED_AT, signal.SIGTERM)
        yield check("exit code after SIGTERM", "0", stopped, stopped == 0)
        run([sys.executable, *words])
        after, whole = _losses(directory), _losses(_only(self.settings.work / "train"))
        record = read_record(directory) or {}
        starts = [launch["environment"]["start_step"] for launch in record["launches"]]
        ok = starts[:2] == [0, start] and STOPPED_AT < starts[2] < STEPS and start in (20, 40)
        expected = f"0, {start}, then {STOPPED_AT} or more"
        yield check("launches began at updates", expected, starts, ok)
        yield check("updates recorded, each once", str(STEPS), len(after), len(after) == STEPS)
        # the forward pass adds in one order: the first loss after a checkpoint has the same bits
        first = after[start] == before[start]
        text = f"{before[start]!r}, then {after[start]!r}"
        yield check("first loss after the resume", "equal bits", text, first)
        again = {step: before[step] for step in before if step >= start}
        yield self._alike("updates trained again", again, after)
        yield self._alike("resumed twice, against never interrupted", whole, after, OF_A_RUN)

    def _alike(
        self, name: str, one: Mapping[int, float], two: Mapping[int, float], to: float = ROUNDING
    ) -> Row:
        """Losses by update: equal bits on a CPU, equal to rounding on a GPU."""
        most, text = _apart(one, two)
        if self.settings.device == "cpu":
            return check(name, "equal bits", text, most == 0 and len(one) > 0)
        return check(name, f"within {to:g}", text, most <= to)

    def compiled(self) -> Iterator[Row]:
        """Compiled and not, in float32: the same to rounding, and not the same code."""
        given: dict[str, Any] = {"dtype": "float32", "total_steps": SHORT}
        given |= {"model.n_layer": 1} if self.settings.tiny else {}  # a CPU compiles for long
        times, losses = {}, {}
        for compile_ in (True, False):
            text = str(compile_).lower()
            directory = self.fresh(f"compile-{text}", compile=text, **given)
            losses[compile_] = _losses(directory)
            record = read_record(directory) or {}
            times[compile_] = record["launches"][-1]["environment"]["warm_up_seconds"]
        most, text = _apart(losses[True], losses[False])
        ok = most <= 0.01 and len(losses[True]) == SHORT
        yield check("compiled against not", "within 0.01", text, ok)
        yield check(
            "warm-up pass, compiled and not",
            "longer compiled",
            f"{times[True]:.1f} and {times[False]:.1f} s",
            times[True] > times[False],
        )

    def precisions(self) -> Iterator[Row]:
        """float32 and bfloat16: near each other, and not equal."""
        losses = {}
        for dtype in ("float32", "bfloat16"):
            directory = self.fresh(dtype, dtype=dtype, compile="false", total_steps=SHORT)
            losses[dtype] = _losses(directory)
            record = read_record(directory) or {}
            found = record["launches"][-1]["environment"]["dtype"]
            yield check("dtype in the record", dtype, found, found == dtype)
        most, text = _apart(*losses.values())
        ok = 0 < most <= 0.1
        yield check("bfloat16 against float32", "within 0.1, and not equal", text, ok)

    def against_cpu(self) -> Iterator[Row]:
        """The same run in float32 on the CPU: batches and weights do not depend on the device."""
        words = {"dtype": "float32", "compile": "false", "total_steps": SHORT}
        here, cpu = self.fresh("cuda", **words), self.fresh("cpu", device="cpu", **words)
        hashes = [(read_record(directory) or {})["hashes"] for directory in (here, cpu)]
        equal = hashes[0] == hashes[1]
        yield check("hashes of weights and data", "equal", "equal" if equal else "differ", equal)
        most, text = _apart(_losses(here), _losses(cpu))
        yield check("losses against the CPU's", "within 0.02", text, most <= 0.02)


def _only(folder: Path) -> Path:
    (directory,) = folder.iterdir()
    return directory


def _losses(directory: Path) -> dict[int, float]:
    """Training losses by update, of the lines that are whole; each update must be there once."""
    lines = [x for x in read_metrics(directory) if "train/loss" in x]
    losses = {x["step"]: x["train/loss"] for x in lines}
    if len(losses) != len(lines) or not losses:
        raise RuntimeError(f"{directory} has {len(lines)} lines of {len(losses)} updates")
    return losses


def _apart(one: Mapping[int, float], two: Mapping[int, float]) -> tuple[float, str]:
    """How far two runs' losses of the same updates are apart at most; as a number and in words."""
    most = max(abs(one[step] - two[step]) for step in one)
    return most, f"{len(one)} losses, most {most:.2g} apart"


def _interrupt(words: list[str], folder: Path, step: int, number: signal.Signals) -> int:
    """Start a run, send it a signal after `step` updates and a checkpoint; returns its exit code.

    A GPU may do ten updates while the first checkpoint is on its way to the disk.
    """
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT)
    try:
        while process.poll() is None:
            if any(step in _steps(x) and checkpoints(x / "checkpoints") for x in folder.glob("*")):
                os.kill(process.pid, number)
                return process.wait()
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    raise RuntimeError(f"the run ended before update {step}, with exit code {process.returncode}")


def _steps(directory: Path) -> set[int]:
    """Updates in the lines that a live run has written; the last line may be half."""
    file = directory / "metrics.jsonl"
    text = file.read_text() if file.exists() else ""
    return {int(x) for x in re.findall(r'"step": ?(\d+)[^\n]*"train/loss"[^\n]*\n', text)}


# ---------------------------------------------------------------- the tests


def _tests(settings: Settings) -> Row:
    """The tests that need CUDA, where pytest is installed."""
    name, expected = "tests marked gpu", "all pass, at least one"
    if settings.device == "cpu":
        return check(name, expected, "not run: they need CUDA", None)
    if version("pytest") is None:
        return check(name, expected, "not run: pytest is not installed", None)
    words = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/test_gpu.py"]
    done = subprocess.run(words, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=False)
    print(done.stdout, flush=True)
    last = ([x for x in done.stdout.splitlines() if x.strip()] or ["nothing printed"])[-1]
    return check(name, expected, last, done.returncode == 0 and "passed" in last)
