"""What the tests share: tiny shards of real text, small runs here, and real torchrun jobs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs import command, tiny_shards
from tests.wandb_server import WandbServer

# One thread a process and no spinning: the suite runs on two cores, often several processes.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
os.environ |= {"WANDB_MODE": "offline", "TORCH_CPP_LOG_LEVEL": "ERROR"}


@pytest.fixture(autouse=True)
def _denormals_as_found() -> Iterator[None]:
    """The trainer flushes them, for the whole process: what follows must not notice."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes of a made-up text: 40,000 training and 8,192 validation tokens."""
    return tiny_shards(tmp_path_factory.mktemp("tokens"))


@pytest.fixture
def tiny(shards: Path, tmp_path: Path) -> list[str]:
    """Command line of a run that takes a second: two layers, 12 steps of 512 tokens."""
    return command(shards, tmp_path / "runs")


@pytest.fixture
def wandb_server() -> Iterator[WandbServer]:
    """A stand-in for W&B on loopback; requests still held back are answered before it stops."""
    server = WandbServer()
    yield server
    server.awake.set()
    server.stop()
