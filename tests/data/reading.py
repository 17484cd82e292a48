"""What the tests read back from folders of shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data import DataError, open_split

EOT = 50256


def documents(tokens: np.ndarray, eot_id: int = EOT) -> list[bytes]:
    starts = np.flatnonzero(tokens == eot_id)
    return [piece.tobytes() for piece in np.split(tokens, starts) if len(piece)]


def shard_bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.bin"))}


def read(directory: Path, split: str = "train", **options: object) -> np.ndarray:
    tokens = open_split(directory, split, **({"vocab_size": 50257} | options))
    return np.concatenate(tokens.shards)


def refusal(directory: Path, split: str = "train", **options: object) -> str:
    with pytest.raises(DataError) as caught:
        open_split(directory, split, **({"vocab_size": 50257} | options))
    message = str(caught.value)
    assert "\n" not in message
    return message
