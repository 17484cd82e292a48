"""One writer for a folder at a time: a lock that the kernel releases when its process dies."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

LOCK = "lock"


class LockedError(RuntimeError):
    """Another process holds the folder; `owner` names it."""

    def __init__(self, directory: Path, owner: str) -> None:
        super().__init__(f"{directory} is in use by {owner}")
        self.owner = owner


def lock(directory: Path, wait_seconds: float = 0.0) -> IO[str]:
    """Hold `directory`, created if absent; returns the open lock file: close it to release.

    wait_seconds: how long to wait for a process that is about to end. The file's text names its
    owner. On a file system without locks this only warns: a second writer would go unnoticed.

    Raises:
        LockedError: another process holds it.
        OSError: the folder cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = (directory / LOCK).open("a+", encoding="utf-8")
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.seek(0)
                owner = file.read().strip() or "a process that has not written its name yet"
                file.close()
                raise LockedError(directory, owner) from None
            time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))
        except OSError as error:
            print(
                f"warning: {directory} is on a file system without locks ({error.strerror}): "
                "start one process there at a time",
                file=sys.stderr,
            )
            break
    file.truncate(0)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    file.write(f"host {socket.gethostname()} pid {os.getpid()} since {started}\n")
    file.flush()
    return file


def is_locked(directory: Path) -> bool:
    """Whether a live process holds `directory`. A `lock` elsewhere may have to wait meanwhile."""
    try:
        with (directory / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, or one that cannot be read
        return False
    return False
