"""What the tests share: tiny shards of real text, small runs in this process, real torchrun jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"  # optional material; tests that want it skip without it

# One thread a process and no spinning: the suite runs on two cores, often several processes.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
os.environ |= {"WANDB_MODE": "offline", "TORCH_CPP_LOG_LEVEL": "ERROR"}


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes of this project's own source text: 40,000 training and 8,192 validation tokens."""
    folder = tmp_path_factory.mktemp("tokens")
    text = b"".join(p.read_bytes() for p in sorted(ROOT.glob("*/*.py")))
    tokens = np.frombuffer(text, dtype=np.uint8).astype(np.uint16)
    assert len(tokens) > 48_193
    write_shard(folder / "tiny_val_000000.bin", tokens[:8_193])
    write_shard(folder / "tiny_train_000000.bin", tokens[8_193:30_000])
    write_shard(folder / "tiny_train_000001.bin", tokens[30_000:48_193])
    return folder


def write_shard(path: Path, tokens: np.ndarray) -> None:
    """In llm.c's layout, written here by hand so that the tests do not lean on our writer."""
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, len(tokens)
    path.write_bytes(header.tobytes() + tokens.astype("<u2").tobytes())


@pytest.fixture
def tiny(shards: Path, tmp_path: Path) -> list[str]:
    """Command line of a run that takes a second: two layers, 12 steps of 512 tokens."""
    return command(shards, tmp_path / "runs")


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


def job(arguments: list[str], nproc: int = 0, **options: object) -> subprocess.Popen[str]:
    """A real job: torchrun with `nproc` ranks, or plain python for 0. In its own session."""
    launcher = [sys.executable]
    if nproc:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={nproc}"]
    return subprocess.Popen(
        [*launcher, "train_gpt2.py", *arguments],
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
