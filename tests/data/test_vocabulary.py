"""Tokenizers: text becomes the known tokens, and comes back."""

from __future__ import annotations

import numpy as np
import pytest

from data import DataError
from data.vocabulary import GPT2, Bytes, tokenizer_named
from tests.data.reading import EOT


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_gpt2_tokens_of_shakespeare_are_the_known_number(shakespeare):
    tokens = GPT2().encode([shakespeare])
    assert len(tokens) == 1 + 338_025
    assert tokens[0] == EOT
    assert tokens.dtype == np.uint16
    assert GPT2().decode(tokens[1:].tolist()) == shakespeare


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_spelled_out_end_of_text_is_text():
    assert np.count_nonzero(GPT2().encode(["a <|endoftext|> b", ""]) == EOT) == 2


def test_bytes_round_trip():
    tokens = Bytes().encode(["ä\n", "", "z"])
    assert tokens.tolist() == [256, 0xC3, 0xA4, 10, 256, 256, ord("z")]
    assert Bytes().decode(tokens.tolist()) == "<|endoftext|>ä\n<|endoftext|><|endoftext|>z"


def test_missing_vocabulary_says_how_to_provide_it(monkeypatch, tmp_path):
    import tiktoken

    def unreachable(name):
        raise OSError("Name or service not known")

    monkeypatch.setattr(tiktoken, "get_encoding", unreachable)
    with pytest.raises(DataError, match="TIKTOKEN_CACHE_DIR") as caught:
        tokenizer_named("gpt2")
    assert "\n" not in str(caught.value)
