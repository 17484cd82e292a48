"""Files are whole or absent: also after a power cut, which only the order of syncs can show."""

import os
import stat
from pathlib import Path

import pytest

import storage.files
from record import checkpoints
from record.runlog import RunLog, WandbOptions
from storage import publish, read_json, write_atomically, write_json


@pytest.fixture
def calls(monkeypatch):
    """Syncs of files, with their length so far, syncs of folders, and renames, in order."""
    seen = []
    sync, rename = os.fsync, os.replace

    def fsync(descriptor):
        status = os.fstat(descriptor)
        folder = stat.S_ISDIR(status.st_mode)
        seen.append(
            ("folder", status.st_ino) if folder else ("sync", status.st_ino, status.st_size)
        )
        sync(descriptor)

    def replace(source, target, **kwargs):
        rename(source, target, **kwargs)
        seen.append(("rename", Path(target).name))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    return seen


def published(path):
    """The calls that make `path` durable: its bytes, then its name, then its folder."""
    status = path.stat()
    return [
        ("sync", status.st_ino, status.st_size),
        ("rename", path.name),
        ("folder", path.parent.stat().st_ino),
    ]


def test_a_published_file_is_synced_renamed_and_its_folder_synced(tmp_path, calls):
    with (tmp_path / "partial").open("wb") as file:
        file.write(b"x" * 10_000)  # in the process's buffer until it is flushed
        publish(file, tmp_path / "whole")
    assert calls == published(tmp_path / "whole")
    assert (tmp_path / "whole").stat().st_size == 10_000


def test_what_is_written_atomically_is_durable_in_this_order(tmp_path, calls):
    write_json(tmp_path / "a.json", {"x": 1})
    assert calls == published(tmp_path / "a.json")


def test_a_checkpoint_is_durable_before_the_older_one_is_removed(tmp_path, calls, monkeypatch):
    remove = Path.unlink

    def unlink(path, missing_ok=False):
        calls.append(("remove", path.name))
        remove(path, missing_ok)

    old = checkpoints.write(tmp_path, 1, 1, lambda file: file.write(b"one"))
    monkeypatch.setattr(Path, "unlink", unlink)
    calls.clear()
    new = checkpoints.write(tmp_path, 2, 1, lambda file: file.write(b"two"))
    assert calls == [*published(new), ("remove", old.name)]


def test_lines_are_durable_once_they_are_synced(tmp_path, calls):
    options = WandbOptions(mode="disabled", project="p", name="n")
    log = RunLog(tmp_path, config_toml="", config={}, resume_offset=None, wandb=options)
    log.log(0, {"train/loss": 3.0})
    calls.clear()
    log.sync()
    assert calls == [("sync", (tmp_path / "metrics.jsonl").stat().st_ino, log.offset())]
    assert log.offset() == len((tmp_path / "metrics.jsonl").read_bytes()) > 0


def test_a_failure_keeps_the_old_content_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")

    def parts():
        yield b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, parts())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_and_parts_are_written_in_order(tmp_path):
    write_atomically(tmp_path / "a", "größer")
    assert (tmp_path / "a").read_bytes() == "größer".encode()
    write_atomically(tmp_path / "a", [b"one", memoryview(b"two")])
    assert (tmp_path / "a").read_bytes() == b"onetwo"


def test_two_processes_write_the_same_path_through_files_of_their_own(tmp_path):
    def parts():
        (temporary,) = tmp_path.iterdir()
        assert temporary.name == f".a.json.{os.getpid()}.tmp"
        yield b"{}"

    write_atomically(tmp_path / "a.json", parts())


def test_json_reads_back_and_is_readable(tmp_path):
    value = {"name": "ü", "list": [1, 2.5, None]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_text().splitlines()[1] == ' "name": "\\u00fc",'
    assert (tmp_path / "a.json").read_text().endswith("\n}\n")


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"3", b"\xff{}"])
def test_what_is_no_json_object_reads_as_none(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None
    assert read_json(tmp_path / "a.json" / "below") is None


def test_leftovers_of_interrupted_writes_are_removed_and_nothing_else(tmp_path, monkeypatch):
    def interrupted(file, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.files, "publish", interrupted)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # as after SIGKILL
    with pytest.raises(KeyboardInterrupt):
        storage.write_atomically(tmp_path / "a.json", "{}")
    monkeypatch.undo()
    (tmp_path / "b.json").touch()
    (tmp_path / ".hidden").touch()
    assert len(list(tmp_path.iterdir())) == 3
    storage.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"b.json", ".hidden"}
