"""What the tests share: tiny shards of real text, small runs here, and real torchrun jobs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.jobs import ROOT, command, write_shard

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


@pytest.fixture
def tiny(shards: Path, tmp_path: Path) -> list[str]:
    """Command line of a run that takes a second: two layers, 12 steps of 512 tokens."""
    return command(shards, tmp_path / "runs")
