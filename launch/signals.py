"""How a process is asked to stop, and how it ends when its parent dies."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[list[str]]:
    """Names of the signals received so far; the caller stops at the next point where it can."""
    received: list[str] = []
    caught = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under nohup it stays ignored
        caught.append(signal.SIGHUP)

    def note(number: int, _frame: object) -> None:
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in caught}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Have the kernel send SIGTERM when the torchrun agent dies, even by SIGKILL; Linux only.

    Without it the ranks of a killed agent train on, and hold the GPUs.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with(os.getppid())()


def end_with(parent: int) -> Callable[[], None]:
    """A function for a child of `parent`: the kernel then sends it SIGTERM when the parent dies.

    `subprocess.Popen` takes it as `preexec_fn`. Linux only: elsewhere it does nothing.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl, pr_set_pdeathsig = ctypes.CDLL(None).prctl, 1

    def arrange() -> None:
        prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != parent:  # the parent died just before
            os._exit(1)

    return arrange
