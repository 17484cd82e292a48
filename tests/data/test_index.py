"""The index of what shards hold: each is scanned once, and its hash is compared."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os

import numpy as np
import pytest

import data.index
from data import open_split
from data.formats import write_shard
from data.index import Scan, ScanIndex
from tests.data.reading import read, refusal

TOKENS = np.array([50256, 15496, 995, 0, 1, 2, 3, 50255], dtype=np.uint16)


@pytest.fixture
def no_scans(monkeypatch):
    """Call it, and a scan fails the test."""
    return lambda: monkeypatch.setattr(data.index, "scan", lambda _: pytest.fail("scanned again"))


def test_shards_are_scanned_once(tmp_path, no_scans):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    read(tmp_path)
    assert json.loads((tmp_path / "index.json").read_text())["files"]["x_train_0.bin"]
    no_scans()
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


def sha256(tokens):
    return hashlib.sha256(tokens.astype("<u2").tobytes()).hexdigest()


def entry(directory, name, tokens, largest):
    status = (directory / name).stat()
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "tokens": len(tokens),
        "largest_id": largest,
        "sha256": sha256(tokens),
    }


def test_index_holds_what_a_file_is_known_by_its_largest_id_and_its_hash(tmp_path):
    for name in ("x_train_1.bin", "x_train_0.bin"):
        write_shard(tmp_path / name, TOKENS[2:])
    read(tmp_path)
    names = [f"x_train_{i}.bin" for i in range(2)]
    files = {name: entry(tmp_path, name, TOKENS[2:], 50255) for name in names}
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


def test_a_writer_records_what_it_knows(tmp_path, no_scans):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    index = ScanIndex(tmp_path)
    index.record(tmp_path / "x_train_0.bin", TOKENS, Scan(50256, sha256(TOKENS)))
    index.save()
    assert index_of(tmp_path)["files"] == {
        "x_train_0.bin": entry(tmp_path, "x_train_0.bin", TOKENS, 50256)
    }
    no_scans()
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
        "x_train_0.bin": entry(tmp_path, "x_train_0.bin", TOKENS, 50256)
    }


def test_an_index_without_hashes_is_read_again_and_completed(tmp_path):
    """As earlier versions wrote it."""
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    old = entry(tmp_path, "x_train_0.bin", TOKENS, 50256)
    del old["sha256"]
    files = {"x_train_0.bin": old}
    (tmp_path / "index.json").write_text(json.dumps({"kind": "largest token ids", "files": files}))
    (found,) = open_split(tmp_path, "train", vocab_size=50257).scan()
    assert found == sha256(TOKENS)
    assert index_of(tmp_path)["files"]["x_train_0.bin"]["sha256"] == sha256(TOKENS)


@pytest.mark.parametrize("length", [1, 2**20, 2**20 + 1, 3 * 2**20 + 5])
def test_hash_and_largest_id_are_of_all_pieces(length):
    tokens = np.arange(length, dtype="<u4").astype("<u2")
    tokens[-1] = 65_535
    assert data.index.scan(tokens) == Scan(65_535, sha256(tokens))
    assert data.index.scan(tokens[::-1]) == Scan(65_535, sha256(tokens[::-1]))


def test_a_hash_is_of_the_tokens_in_whatever_format_they_lie(tmp_path):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    np.save(tmp_path / "x_val_0.npy", TOKENS)
    hashes = [open_split(tmp_path, s, vocab_size=50257).scan() for s in ("train", "val")]
    assert hashes[0] == hashes[1] == [sha256(TOKENS)]


def test_a_long_scan_says_so(tmp_path, monkeypatch, capsys):
    for i in range(2):
        write_shard(tmp_path / f"x_train_{i}.bin", TOKENS)
    monkeypatch.setattr(data.index, "_LONG", 31)  # of 32 bytes
    read(tmp_path)
    said = f"reading 2 shards in {tmp_path}, 0 GB, to check them once\n"
    assert capsys.readouterr().err == said
    read(tmp_path)
    assert capsys.readouterr().err == ""
