"""What the tests share: tiny shards of real text, small runs here, and real torchrun jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import SHARED, command, tiny_shards
from tests.wandb_server import WandbServer

# One thread a process and no spinning: the suite runs on two cores, often several processes.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
os.environ |= {"WANDB_MODE": "offline", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="skip what starts a process or compiles")


@pytest.fixture(autouse=True, scope="session")
def _quick(request: pytest.FixtureRequest) -> Iterator[None]:
    """With --quick, skip a test as soon as it, or its fixture, starts a process or compiles."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--quick"):
            start = subprocess.Popen.__init__

            def start_or_skip(self: Any, args: Any, *rest: Any, **options: Any) -> None:
                program = args if isinstance(args, str) else str(args[0])
                if program != "git":  # which the trainer asks for its commit
                    pytest.skip("starts a process")
                start(self, args, *rest, **options)

            patch.setattr(subprocess.Popen, "__init__", start_or_skip)
            patch.setattr(BaseProcess, "start", lambda _: pytest.skip("starts a process"))
            patch.setattr("torch.compile", lambda *_, **__: pytest.skip("compiles"))
        yield


@pytest.fixture(autouse=True)
def _denormals_as_found() -> Iterator[None]:
    """The trainer turns denormals off for the whole process; turn them on again after each test."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes of a made-up text: 40,000 training, 8,192 validation and 4,096 test tokens."""
    return tiny_shards(tmp_path_factory.mktemp("tokens"))


@pytest.fixture
def tiny(shards: Path, tmp_path: Path) -> list[str]:
    """Command line of a run that takes a second: two layers, 12 steps of 512 tokens."""
    return command(shards, tmp_path / "runs")


@pytest.fixture(scope="session")
def vocabulary_folder() -> str:
    """tiktoken's files, from the environment or the folder beside the checkout."""
    if "TIKTOKEN_CACHE_DIR" in os.environ:
        return os.environ["TIKTOKEN_CACHE_DIR"]
    folder = SHARED / "tokenizer"
    if not folder.is_dir():
        pytest.skip(f"no TIKTOKEN_CACHE_DIR, and {folder} with GPT-2's vocabulary is absent")
    return str(folder)


@pytest.fixture
def gpt2_vocabulary(monkeypatch: pytest.MonkeyPatch, vocabulary_folder: str) -> None:
    """GPT-2's tokenizer works without a network, in this process and in its children."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", vocabulary_folder)


@pytest.fixture
def wandb_server() -> Iterator[WandbServer]:
    """A stand-in for W&B on loopback; requests still held back are answered before it stops."""
    server = WandbServer()
    yield server
    server.awake.set()
    server.stop()
