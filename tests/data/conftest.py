from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from data import Tokens, open_split
from data.__main__ import main
from data.formats import write_shard
from tests.jobs import SHARED


@pytest.fixture
def make_tokens(tmp_path: Path) -> Callable[..., Tokens]:
    """Split train of shards with the given lengths; the tokens count up, modulo 60,000."""

    def make(*lengths: int, split: str = "train") -> Tokens:
        start = 0
        for i, length in enumerate(lengths):
            tokens = (np.arange(start, start + length) % 60_000).astype(np.uint16)
            write_shard(tmp_path / f"x_{split}_{i:06d}.bin", tokens)
            start += length
        return open_split(tmp_path, split, vocab_size=60_000)

    return make


@pytest.fixture
def shakespeare() -> str:
    """1.1 MB of real text."""
    file = SHARED / "data" / "tinyshakespeare.txt"
    if not file.is_file():
        pytest.skip(f"{file} is absent")
    return file.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _datasets_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    # `datasets` imports torch if it may, two seconds for each process that is started here.
    monkeypatch.setenv("USE_TORCH", "0")


@dataclass
class Result:
    """What a command left: its exit code and its output."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`python -m data ...` in this process."""

    def run(*args: object) -> Result:
        try:
            code = main([*map(str, args)])
        except SystemExit as leaving:  # of the parser
            code = int(leaving.code or 0)
        return Result(code, *capsys.readouterr())

    return run
