"""Text to token ids and back: GPT-2's byte pairs, or plain bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.formats import TOKEN, DataError
from data.shards import META
from storage import read_json

EOT_TEXT = "<|endoftext|>"
_BY_SIZE = {50257: "gpt2", 257: "bytes", 256: "bytes"}  # by vocab_size, where no meta.json says


class Tokenizer(ABC):
    """`name` as in meta.json, `vocab_size`, and `eot_id`, the id before each document."""

    name: str
    vocab_size: int
    eot_id: int

    @abstractmethod
    def encode(self, documents: Sequence[str]) -> np.ndarray:
        """uint16 (n,): each document's tokens with the end-of-text token before it.

        A special token spelled out in a document is ordinary text.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; an incomplete character becomes U+FFFD."""


class Bytes(Tokenizer):
    """UTF-8 bytes, and 256 for the end of text."""

    name, vocab_size, eot_id = "bytes", 257, 256

    def encode(self, documents: Sequence[str]) -> np.ndarray:  # noqa: D102
        parts: list[np.ndarray] = []
        for document in documents:
            raw = document.encode("utf-8", "replace")
            parts += [np.array([self.eot_id], TOKEN), np.frombuffer(raw, np.uint8).astype(TOKEN)]
        return np.concatenate(parts) if parts else np.empty(0, TOKEN)

    def decode(self, ids: Sequence[int]) -> str:  # noqa: D102
        pieces = (EOT_TEXT.encode() if i == self.eot_id else bytes([i]) for i in ids)
        return b"".join(pieces).decode("utf-8", "replace")


class GPT2(Tokenizer):
    """GPT-2's 50,257 tokens, by tiktoken.

    Raises:
        DataError: the vocabulary cannot be loaded.
    """

    name, vocab_size, eot_id = "gpt2", 50257, 50256

    def __init__(self) -> None:
        self._encoding = _load_gpt2()

    def encode(self, documents: Sequence[str]) -> np.ndarray:  # noqa: D102
        # One thread: the sources run one process per core.
        rows = self._encoding.encode_ordinary_batch(list(documents), num_threads=1)
        flat: list[int] = []
        for row in rows:
            flat.append(self.eot_id)
            flat += row
        return np.array(flat, TOKEN)

    def decode(self, ids: Sequence[int]) -> str:  # noqa: D102
        return self._encoding.decode(list(ids))


def tokenizer_name(directory: Path | str | None, vocab_size: int) -> str | None:
    """Which tokenizer made the tokens of a model: by their folder, else by the vocabulary's size.

    None: neither says. It may be the name of one that is not here.
    """
    meta = (read_json(Path(directory) / META) if directory else None) or {}
    return meta.get("tokenizer", _BY_SIZE.get(vocab_size))


def tokenizer_named(name: str) -> Tokenizer:
    """The tokenizer "gpt2" or "bytes".

    Raises:
        DataError: another name, or GPT-2's vocabulary cannot be loaded.
    """
    if name == "gpt2":
        return GPT2()
    if name == "bytes":
        return Bytes()
    raise DataError(f"tokenizer {name!r} is unknown; valid: gpt2, bytes")


def _load_gpt2() -> Any:
    import tiktoken

    try:
        # r50k_base has the same ids as gpt2, and needs one download instead of two.
        return tiktoken.get_encoding("r50k_base")
    except Exception as error:  # the network, the file system or a corrupt cache
        raise DataError(
            f"GPT-2's vocabulary cannot be loaded ({type(error).__name__}); where there is a"
            " network run TIKTOKEN_CACHE_DIR=DIR python -c"
            " \"import tiktoken; tiktoken.get_encoding('r50k_base')\", copy DIR here and set"
            " TIKTOKEN_CACHE_DIR to it, or use --tokenizer bytes where the source has it"
        ) from None
