"""The standard library as a source: once, whole, and of this Python."""

from __future__ import annotations

import json

from data.stdlib import source_files
from data.vocabulary import Bytes
from tests.data.reading import documents, read, shard_bytes


def test_stdlib_is_written_once_with_disjoint_files(cli, tmp_path):
    result = cli("stdlib", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    before = shard_bytes(tmp_path)
    train = documents(read(tmp_path, "train", vocab_size=257), 256)
    val = documents(read(tmp_path, "val", vocab_size=257), 256)
    assert set(train) & set(val) <= {documents(Bytes().encode([""]), 256)[0]}  # empty __init__.py
    sizes = [sum(map(len, split)) for split in (train, val)]
    assert 0.03 < sizes[1] / sum(sizes) < 0.12
    assert sizes[0] > 8e6  # two bytes per token
    again = cli("stdlib", "--out", tmp_path)
    assert again.returncode == 0
    assert "complete already" in again.stdout
    assert again.stdout.count("\n") == 1
    assert shard_bytes(tmp_path) == before


def test_stdlib_leaves_packages_and_tests_out(tmp_path):
    for name in ("a.py", "b/c.py", "b/test/d.py", "site-packages/e.py", "f.txt", "idlelib/g.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "_sysconfigdata__linux.py").touch()
    assert list(source_files(tmp_path)) == ["a.py", "b/c.py"]


def test_stdlib_of_another_python_is_not_taken_for_this_one(cli, tmp_path):
    assert cli("stdlib", "--out", tmp_path).returncode == 0
    meta = json.loads((tmp_path / "meta.json").read_text())
    meta["arguments"]["python"] = "3.8.1"
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    result = cli("stdlib", "--out", tmp_path)
    assert result.returncode == 2
    assert "python '3.8.1', now" in result.stderr
