"""Tiny shards, tiny runs, and real jobs as processes, for all tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"  # optional material; tests that want it skip without it


def write_shard(path: Path, tokens: np.ndarray) -> None:
    """In llm.c's layout, written here by hand so that the tests do not lean on our writer."""
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, len(tokens)
    path.write_bytes(header.tobytes() + tokens.astype("<u2").tobytes())


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
    arguments: list[str], nproc: int = 0, program: str = "train_gpt2.py", **options: object
) -> subprocess.Popen[str]:
    """A real job: torchrun with `nproc` ranks, or plain python for 0. In its own session."""
    launcher = [sys.executable]
    if nproc:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={nproc}"]
    return subprocess.Popen(
        [*launcher, program, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> str:
    """Output of a job that must end well."""
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, output
    return output


def only_run(runs: Path) -> Path:
    """The one run directory in `runs`."""
    (directory,) = runs.iterdir()
    return directory
