"""Tiny shards, tiny runs, real jobs as processes, and whether two runs are the same bits."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from record import checkpoints
from tests.forked import ROOT, Forked

if TYPE_CHECKING:
    import pytest

CLOCKS = ("time/", "tokens_per_second", "mfu", "memory/")  # all metrics that may differ
SHARED = ROOT.parent / "shared"  # optional material; tests that want it skip without it


def write_shard(path: Path, tokens: np.ndarray) -> None:
    """In llm.c's layout, written here by hand so that the tests do not lean on our writer."""
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, len(tokens)
    path.write_bytes(header.tobytes() + tokens.astype("<u2").tobytes())


def made_up_text(length: int) -> bytes:
    """Sentences of made-up words, a few of them frequent: the same bytes on every machine."""
    uniform = random.Random(1).random  # Python promises that this sequence never changes
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = [
        "".join(syllables[int(len(syllables) * uniform())] for _ in range(1 + rank // 50))
        for rank in range(200)
    ]
    text = ""
    while len(text) < length:
        drawn = [words[int(len(words) ** uniform()) - 1] for _ in range(3 + int(9 * uniform()))]
        text += " ".join(drawn).capitalize() + ".\n"
    return text[:length].encode()


def tiny_shards(folder: Path) -> Path:
    """Bytes of a made-up text: 40,000 training, 8,192 validation and 4,096 test tokens."""
    folder.mkdir(exist_ok=True)
    tokens = np.frombuffer(made_up_text(52_290), dtype=np.uint8).astype(np.uint16)
    write_shard(folder / "tiny_val_000000.bin", tokens[:8_193])
    write_shard(folder / "tiny_train_000000.bin", tokens[8_193:30_000])
    write_shard(folder / "tiny_train_000001.bin", tokens[30_000:48_193])
    write_shard(folder / "tiny_test_000000.bin", tokens[48_193:])
    return folder


def command(shards: Path, runs: Path) -> list[str]:
    """configs/quickstart.toml, made tiny."""
    settings = {
        "model.vocab_size": 256,
        "model.block_size": 32,
        "model.n_layer": 2,
        "model.n_head": 2,
        "model.n_embd": 32,
        "data.dir": shards,
        "train.total_steps": 12,
        "train.batch_tokens": 512,
        "train.micro_batch_size": 4,
        "train.device": "cpu",
        "eval.every": 5,
        "eval.tokens": 2048,
        "checkpoint.every": 4,
        "log.dir": runs,
        "log.wandb": "disabled",
    }
    flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return [str(ROOT / "configs/quickstart.toml"), *flags]


def job(
    arguments: list[str],
    nproc: int = 0,
    program: str = "train_gpt2.py",
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[str] | Forked:
    """A real job: torchrun with `nproc` ranks, or plain python for 0. In its own session.

    Forked, unless it is given an environment, which a fresh interpreter must see as it starts.
    """
    words = [program, *arguments]
    if nproc:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={nproc}"]
        words = [*torchrun, *words]
    if env is None:
        return Forked(words)
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ranks(arguments: list[str], world_size: int, program: str = "train_gpt2.py") -> list[Forked]:
    """Real ranks, started without torchrun but with the variables that it sets.

    Tests of the ranks themselves use this; tests of torchrun use `job`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    sizes = {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    return [
        Forked(
            [program, *arguments],
            os.environ | meeting | sizes | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world_size)
    ]


def finish(process: subprocess.Popen[str] | Forked, timeout: float = 120) -> str:
    """Output of a job that must end well."""
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, output
    return output


def only_run(runs: Path) -> Path:
    """The one run directory in `runs`."""
    (directory,) = runs.iterdir()
    return directory


def metrics(directory: Path) -> list[dict]:
    """metrics.jsonl without the clocks."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(CLOCKS)} for line in lines]


def end_of(directory: Path) -> tuple[list[dict], dict]:
    """What two equal runs share: metrics without the clocks, and the state in the last checkpoint.

    For `assert_same`.
    """
    newest = checkpoints.newest_whole(directory / "checkpoints")
    assert newest, f"no checkpoint in {directory}"
    saved = checkpoints.load(newest)
    state = {"model": saved.model, "optimizer": saved.optimizer}
    state |= {name: getattr(saved.progress, name) for name in ("step", "evaluated", "metrics")}
    return metrics(directory), state


def result(runs: Path) -> tuple[list[dict], dict]:
    """`end_of` the only run in `runs`."""
    return end_of(only_run(runs))


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` has filled in the first worker that asks for it; the others wait."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / name, base / f"{name}.done"
    with (base / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            done.touch()
    return folder


def assert_same(a: object, b: object, where: str = "result") -> None:
    """Nested containers of tensors and plain values are equal, bit for bit."""
    import torch

    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor), where
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert isinstance(b, dict), where
        assert a.keys() == b.keys(), f"{where}: {a.keys() ^ b.keys()}"
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple), where
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, f"{where}: {a!r} and {b!r}"


def children(pid: int) -> list[int]:
    """Process ids of the direct children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill_group(process: subprocess.Popen[str] | Forked, workers: Iterable[int]) -> None:
    """SIGKILL to the agent and, before they notice, to its workers (each its own session)."""
    for pid in [process.pid, *workers]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def wait_until(
    condition: Callable[[], object],
    seconds: float = 120,
    explain: Callable[[], str] = lambda: "timed out",
    pause: float = 0.005,
) -> None:
    """Poll; AssertionError with an explanation when the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s; {explain()}"
        time.sleep(pause)
