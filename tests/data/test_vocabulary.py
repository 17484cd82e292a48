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


def test_tokenizers_are_named_and_say_what_they_are():
    assert isinstance(tokenizer_named("bytes"), Bytes)
    with pytest.raises(DataError) as caught:
        tokenizer_named("gpt3")
    assert str(caught.value) == "tokenizer 'gpt3' is unknown; valid: gpt2, bytes"
    assert (Bytes.name, Bytes.vocab_size, Bytes.eot_id) == ("bytes", 257, 256)
    assert (GPT2.name, GPT2.vocab_size, GPT2.eot_id) == ("gpt2", 50257, 50256)


def test_bytes_of_nothing_and_of_what_is_no_text():
    assert Bytes().encode([]).shape == (0,)
    assert Bytes().encode([]).dtype == Bytes().encode(["a"]).dtype == np.uint16
    assert Bytes().encode(["a\ud800"]).tolist() == [256, 97, ord("?")]  # half a surrogate pair
    assert Bytes().decode([97, 0xC3]) == "a\ufffd"


class Words:
    """An encoding in tiktoken's shape: one id for each letter."""

    def encode_ordinary_batch(self, documents, num_threads):
        assert isinstance(documents, list)
        assert num_threads == 1  # the sources run one process per core
        return [[ord(letter) for letter in document] for document in documents]

    def decode(self, ids):
        assert isinstance(ids, list)
        return "".join(map(chr, ids))


def test_gpt2_puts_the_end_of_text_before_each_document(monkeypatch):
    import tiktoken

    asked = []
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: asked.append(name) or Words())
    tokenizer = tokenizer_named("gpt2")
    tokens = tokenizer.encode(("ab", "", "c"))
    assert tokens.tolist() == [50256, 97, 98, 50256, 50256, 99]
    assert tokens.dtype == np.uint16
    assert tokenizer.encode([]).tolist() == []
    assert tokenizer.decode((97, 98)) == "ab"
    assert asked == ["r50k_base"]


def test_missing_vocabulary_names_the_cause_and_the_command(monkeypatch):
    import tiktoken

    def unreachable(name):
        raise OSError("Name or service not known")

    monkeypatch.setattr(tiktoken, "get_encoding", unreachable)
    with pytest.raises(DataError) as caught:
        tokenizer_named("gpt2")
    message = str(caught.value)
    assert message.startswith("GPT-2's vocabulary cannot be loaded (OSError); ")
    assert "TIKTOKEN_CACHE_DIR" in message
    assert "tiktoken.get_encoding('r50k_base')" in message
    assert "\n" not in message
    assert message.endswith("or use --tokenizer bytes where the source has it")
