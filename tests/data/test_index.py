"""The index of largest token ids: each shard is scanned once."""

from __future__ import annotations

import json
import multiprocessing
import os

import numpy as np
import pytest

import data.shards
from data import open_split
from data.index import ScanIndex
from data.shards import write_shard
from tests.data.reading import read, refusal

TOKENS = np.array([50256, 15496, 995, 0, 1, 2, 3, 50255], dtype=np.uint16)


def test_largest_ids_are_scanned_once(tmp_path, monkeypatch):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    read(tmp_path)
    assert json.loads((tmp_path / "index.json").read_text())["files"]["x_train_0.bin"]
    monkeypatch.setattr(data.shards, "_largest_id", lambda tokens: pytest.fail("scanned again"))
    read(tmp_path)
    assert "holds token id 50256" in refusal(tmp_path, vocab_size=100)


def test_changed_shard_is_scanned_again(tmp_path):
    path = tmp_path / "x_train_0.bin"
    write_shard(path, TOKENS[1:3])
    read(tmp_path)
    write_shard(path, TOKENS[[0, 1]])  # same name and size, another largest id
    os.utime(path, ns=(1, 1))
    assert "50256" in refusal(tmp_path, vocab_size=50256)


def test_a_shard_replaced_with_equal_size_and_time_is_scanned_again(tmp_path):
    """As `cp -p` and `rsync -t` leave it."""
    path = tmp_path / "x_train_0.bin"
    write_shard(path, TOKENS[1:3])
    read(tmp_path, vocab_size=50256)
    status = path.stat()
    write_shard(path, TOKENS[[0, 1]])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "holds token id 50256" in refusal(tmp_path, vocab_size=50256)


def test_same_file_under_another_format_is_not_confused(tmp_path):
    # Headerless, 16-bit: the scan of one format must not answer for another.
    TOKENS.tofile(tmp_path / "train.bin")
    read(tmp_path, format="nanogpt")
    assert "no llm.c header" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"files": 3}', '{"kind": 1, "files": {}}'])
def test_strange_index_does_not_hurt(tmp_path, content):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    (tmp_path / "index.json").write_text(content)
    assert len(read(tmp_path)) == 8


def test_index_of_another_program_is_left_alone(tmp_path):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    (tmp_path / "index.json").write_text('{"weight_map": {}}')
    read(tmp_path)
    assert (tmp_path / "index.json").read_text() == '{"weight_map": {}}'


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_directory_is_read(tmp_path):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    tmp_path.chmod(0o555)
    assert len(read(tmp_path)) == 8


def test_index_that_cannot_be_written_does_not_hurt(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    monkeypatch.setattr("data.index.write_json", refuse)
    assert len(read(tmp_path)) == 8
    assert not (tmp_path / "index.json").exists()


def _open_both(directory: str) -> int:
    return sum(
        open_split(directory, split, vocab_size=50257).num_tokens for split in ("train", "val")
    )


def test_eight_processes_may_scan_at_once(tmp_path):
    for i in range(4):
        write_shard(tmp_path / f"x_train_{i}.bin", TOKENS)
        write_shard(tmp_path / f"x_val_{i}.bin", TOKENS)
    with multiprocessing.get_context("fork").Pool(8) as pool:
        assert pool.map(_open_both, [str(tmp_path)] * 24) == [64] * 24
    files = json.loads((tmp_path / "index.json").read_text())["files"]
    assert all(entry["largest_id"] == 50256 for entry in files.values())
    assert not list(tmp_path.glob(".*.tmp"))


def index_of(directory):
    return json.loads((directory / "index.json").read_text())


def entry(directory, name, count, largest):
    status = (directory / name).stat()
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "tokens": count,
        "largest_id": largest,
    }


def test_index_holds_what_a_file_is_known_by_and_its_largest_id(tmp_path):
    for name in ("x_train_1.bin", "x_train_0.bin"):
        write_shard(tmp_path / name, TOKENS[2:])
    read(tmp_path)
    files = {f"x_train_{i}.bin": entry(tmp_path, f"x_train_{i}.bin", 6, 50255) for i in range(2)}
    assert index_of(tmp_path) == {"kind": "largest token ids", "files": files}
    assert list(index_of(tmp_path)["files"]) == sorted(files)


def test_index_keeps_what_others_found_and_forgets_files_that_are_gone(tmp_path):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    read(tmp_path)
    write_shard(tmp_path / "x_val_0.bin", TOKENS[2:4])
    read(tmp_path, "val")
    assert set(index_of(tmp_path)["files"]) == {"x_train_0.bin", "x_val_0.bin"}
    (tmp_path / "x_train_0.bin").unlink()
    write_shard(tmp_path / "x_val_1.bin", TOKENS[2:4])
    read(tmp_path, "val")
    assert set(index_of(tmp_path)["files"]) == {"x_val_0.bin", "x_val_1.bin"}


def test_a_writer_records_what_it_knows(tmp_path, monkeypatch):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    index = ScanIndex(tmp_path)
    index.record(tmp_path / "x_train_0.bin", TOKENS, 50256)
    index.save()
    assert index_of(tmp_path)["files"] == {
        "x_train_0.bin": entry(tmp_path, "x_train_0.bin", 8, 50256)
    }
    monkeypatch.setattr(data.shards, "_largest_id", lambda tokens: pytest.fail("scanned again"))
    assert len(read(tmp_path)) == 8


def test_nothing_new_is_not_written(tmp_path):
    ScanIndex(tmp_path).save()
    assert not (tmp_path / "index.json").exists()


@pytest.mark.parametrize(
    "files", [3, {"x_train_0.bin": 5}, {"x_train_0.bin": {"size": "large"}}, {"x_train_0.bin": {}}]
)
def test_damaged_entries_are_scanned_again(tmp_path, files):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    (tmp_path / "index.json").write_text(json.dumps({"kind": "largest token ids", "files": files}))
    assert len(read(tmp_path)) == 8
    assert index_of(tmp_path)["files"] == {
        "x_train_0.bin": entry(tmp_path, "x_train_0.bin", 8, 50256)
    }
