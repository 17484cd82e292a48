"""One writer for a folder at a time."""

import errno
import fcntl
import os
import socket
import threading
import time
from datetime import UTC, datetime

import pytest

from storage import LockedError, is_locked, lock


def test_a_held_folder_is_refused_and_its_owner_named(tmp_path):
    folder = tmp_path / "new" / "folder"
    before = datetime.now(UTC).replace(microsecond=0)
    with lock(folder):
        began = time.monotonic()
        with pytest.raises(LockedError) as caught:
            lock(folder)
        assert time.monotonic() - began < 0.1  # without a wait
        host, pid, since = caught.value.owner.split()[1::2]
        assert (host, int(pid)) == (socket.gethostname(), os.getpid())
        assert before <= datetime.fromisoformat(since) <= datetime.now(UTC)
        assert str(caught.value) == f"{folder} is in use by {caught.value.owner}"
    lock(folder).close()


def test_the_owner_is_the_last_one_who_held_the_folder(tmp_path):
    (tmp_path / "lock").write_text("host elsewhere pid 1 since 2020\n" * 9)
    with lock(tmp_path):
        (line,) = (tmp_path / "lock").read_text().splitlines()
        assert line.startswith(f"host {socket.gethostname()} pid {os.getpid()} since ")


def test_an_owner_that_has_not_written_its_name_is_told_as_such(tmp_path):
    with lock(tmp_path):
        (tmp_path / "lock").write_text("")
        with pytest.raises(LockedError, match="in use by a process that has not written its name"):
            lock(tmp_path)


def test_lock_waits_no_longer_than_it_was_told(tmp_path):
    with lock(tmp_path):
        began = time.monotonic()
        with pytest.raises(LockedError):
            lock(tmp_path, wait_seconds=0.25)
        assert 0.25 <= time.monotonic() - began < 2


def test_lock_takes_the_folder_soon_after_it_is_let_go(tmp_path):
    held = lock(tmp_path)
    threading.Timer(0.2, held.close).start()
    began = time.monotonic()
    lock(tmp_path, wait_seconds=30).close()
    assert 0.15 < time.monotonic() - began < 5


def test_whether_a_folder_is_locked_is_seen_without_taking_it(tmp_path):
    assert not is_locked(tmp_path / "absent")
    assert not is_locked(tmp_path)
    held = lock(tmp_path)
    assert is_locked(tmp_path)
    held.close()
    assert not is_locked(tmp_path)  # the file is still there
    with (tmp_path / "lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # another reader who looks at the same moment
        assert not is_locked(tmp_path)


def test_a_file_system_without_locks_is_told_once_and_used(tmp_path, monkeypatch, capsys):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock(tmp_path):
        warning = capsys.readouterr().err
        assert warning.startswith(f"warning: {tmp_path} is on a file system without locks")
        assert "No locks available" in warning
        assert "start one process there at a time" in warning
        assert not is_locked(tmp_path)


def test_a_longer_wait_looks_often(tmp_path, monkeypatch):
    """Every tenth of a second, and never beyond the deadline."""
    now, slept = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def sleep(seconds):
        slept.append(round(seconds, 6))
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    with lock(tmp_path), pytest.raises(LockedError) as caught:
        lock(tmp_path, wait_seconds=0.25)
    assert slept == [0.1, 0.1, 0.05]
    assert caught.value.owner.startswith("host ")
