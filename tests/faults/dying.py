"""train_gpt2.py, which dies at one moment of a checkpoint that is written beside training.

    python -m tests.faults.dying MOMENT COUNT SECONDS CONFIG...

It kills itself at that moment of its COUNT-th checkpoint, after SECONDS more if training goes on
meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import train_gpt2
from record import checkpoints, writer

MOMENTS = (
    "copied",  # the thread has not begun
    "begun",  # nothing is in a file
    "half written",
    "synced",  # before it gets its name
    "renamed",  # before older ones are removed
)


def arrange(moment: str, count: int, seconds: float) -> None:
    """Have this process die there."""
    begun = [0]

    def die_at(here: str, wait: float = seconds) -> None:
        if here == moment and begun[0] == count:
            time.sleep(wait)
            os.kill(os.getpid(), signal.SIGKILL)

    copied, save, write = writer._Copies.of, checkpoints.save, checkpoints._HashingFile.write
    publish, bytes_written = checkpoints.publish, [0]

    def of(self: Any, value: Any) -> Any:
        begun[0] += 1
        copy = copied(self, value)
        die_at("copied", 0)
        return copy

    def saved(*given: Any) -> Any:
        bytes_written[0] = 0
        die_at("begun")
        return save(*given)

    def written(self: Any, chunk: bytes) -> int:
        bytes_written[0] += len(chunk)
        if bytes_written[0] > 700_000:
            die_at("half written")
        return write(self, chunk)

    def published(file: Any, path: Any) -> None:
        os.fsync(file.fileno())
        die_at("synced")
        publish(file, path)
        die_at("renamed")

    writer._Copies.of, checkpoints.save = of, saved  # type: ignore[method-assign, assignment]
    checkpoints._HashingFile.write = written  # type: ignore[method-assign, assignment]
    checkpoints.publish = published


if __name__ == "__main__":
    arrange(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    sys.exit(train_gpt2.main(sys.argv[4:]))
