"""The standard library as a source: once, whole, and of this Python."""

from __future__ import annotations

import itertools
import json

from data.stdlib import source_files, split_of
from data.vocabulary import Bytes
from data.writer import split_by_hash
from tests.data.reading import documents, read, shard_bytes


def test_stdlib_is_written_once_with_disjoint_files(cli, tmp_path):
    result = cli("stdlib", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    before = shard_bytes(tmp_path)
    splits = ("train", "val", "test")
    train, val, test = (documents(read(tmp_path, s, vocab_size=257), 256) for s in splits)
    for one, other in itertools.combinations((train, val, test), 2):
        assert {*one} & {*other} <= {documents(Bytes().encode([""]), 256)[0]}  # empty __init__.py
    sizes = [sum(map(len, split)) for split in (train, val, test)]
    assert 0.03 < sum(sizes[1:]) / sum(sizes) < 0.12
    assert min(sizes[1:]) > 2 * 65_536  # two bytes per token; what the quickstart evaluates
    assert sizes[0] > 8e6
    again = cli("stdlib", "--out", tmp_path)
    assert again.returncode == 0
    assert "complete already" in again.stdout
    assert again.stdout.count("\n") == 2
    assert shard_bytes(tmp_path) == before


def test_test_split_is_taken_from_val_so_that_training_stays_as_it_was():
    """Before there was a test split, files below 7 % were val and all others train."""
    names = [f"{folder}module_{i}.py" for folder in ("", "package/") for i in range(500)]
    before = {name: split_by_hash(name, 0.07) for name in names}
    now = {name: split_of(name) for name in names}
    assert {name for name in names if now[name] == "train"} == {
        name for name in names if before[name] == "train"
    }
    set_aside = [name for name in names if before[name] == "val"]
    assert {now[name] for name in set_aside if "/" not in name} == {"val"}
    assert {now[name] for name in set_aside if "/" in name} == {"test"}


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
