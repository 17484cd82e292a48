"""`python -m data inspect`: what is in a folder of shards."""

from __future__ import annotations

import re

import numpy as np
import pytest


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_inspect_decodes_shards_that_have_no_meta(cli, tmp_path):
    text = np.array([50256, 15496, 995], np.uint16)  # <|endoftext|>Hello world
    np.save(tmp_path / "edufineweb_train_000001", text)
    result = cli("inspect", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1 shards, 3 tokens, documents: 1, largest id 50256" in result.stdout
    assert "Hello world" in result.stdout
    assert "no shards for split val" in result.stdout


def test_inspect_reads_headerless_files_when_asked(cli, tmp_path):
    np.array([7, 60_000], np.uint16).tofile(tmp_path / "train.bin")
    refused = cli("inspect", tmp_path)
    assert refused.returncode == 2
    advised = re.search(r"(--[\w.]+) nanogpt$", refused.stderr.strip())[1]
    for flag in (advised, "--format"):
        result = cli("inspect", tmp_path, flag, "nanogpt")
        assert result.returncode == 0
        assert "[7, 60000]" in result.stdout


def test_inspect_uses_the_tokenizer_that_meta_names(cli, tmp_path):
    cli("coinflip", "--out", tmp_path, "--train-tokens", 1000, "--val-tokens", 1000)
    result = cli("inspect", tmp_path, "--head", 5)
    assert "coinflip (p 0.666" in result.stdout
    assert "vocab_size 2" in result.stdout
    assert "documents: unknown" in result.stdout
