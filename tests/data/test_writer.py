"""What the writers of all sources share."""

from __future__ import annotations

import os
import socket

import pytest

from data import DataError, Tokens, open_split
from storage import lock
from tests.data.reading import all_tokens


def test_directory_with_shards_from_elsewhere_is_refused(cli, tmp_path):
    (tmp_path / "fineweb_train_000001.bin").write_bytes(b"theirs")
    result = cli("coinflip", "--out", tmp_path)
    assert result.returncode == 2
    assert "from elsewhere" in result.stderr
    assert (tmp_path / "fineweb_train_000001.bin").read_bytes() == b"theirs"


def test_another_source_is_refused(cli, tmp_path):
    small = ("--train-tokens", 1000, "--val-tokens", 1000)
    assert cli("coinflip", "--out", tmp_path, *small).returncode == 0
    result = cli("stdlib", "--out", tmp_path)
    assert result.returncode == 2
    assert "source 'coinflip', now 'stdlib'" in result.stderr


@pytest.mark.parametrize("damage", ["remove", "cut"])
def test_complete_directory_with_a_damaged_shard_is_not_called_complete(cli, tmp_path, damage):
    small = ("--train-tokens", 1000, "--val-tokens", 1000)
    assert cli("coinflip", "--out", tmp_path, *small).returncode == 0
    shard = tmp_path / "coinflip_val_000000.bin"
    if damage == "remove":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-2])
    result = cli("coinflip", "--out", tmp_path, *small)
    assert result.returncode == 2
    assert "coinflip_val_000000.bin" in result.stderr


def test_small_source_that_was_interrupted_starts_again(tmp_path, monkeypatch):
    from data.__main__ import main
    from data.writer import Output

    def interrupt(output):
        raise KeyboardInterrupt

    command = ["coinflip", "--out", str(tmp_path), "--train-tokens", "1K", "--val-tokens", "2K"]
    with monkeypatch.context() as patch:
        patch.setattr(Output, "finish", interrupt)
        assert main(command) == 130
    with pytest.raises(DataError, match="python -m data coinflip --out"):
        open_split(tmp_path, "train", vocab_size=2)
    assert main(command) == 0
    sizes = {split: len(all_tokens(tmp_path, split, 2)) for split in ("train", "val")}
    assert sizes == {"train": 1000, "val": 2000}


def test_two_writers_of_one_directory_are_refused(cli, tmp_path):
    with lock(tmp_path):
        result = cli("coinflip", "--out", tmp_path)
    assert result.returncode == 2
    assert f"in use by host {socket.gethostname()} pid {os.getpid()}" in result.stderr


def test_writers_leave_the_index_that_readers_need(cli, tmp_path, monkeypatch):
    import data.shards

    cli("coinflip", "--out", tmp_path, "--train-tokens", 1000, "--val-tokens", 1000)
    monkeypatch.setattr(data.shards, "_largest_id", lambda tokens: pytest.fail("scanned again"))
    assert isinstance(open_split(tmp_path, "val", vocab_size=2), Tokens)
