"""Signals that ask a run to stop, noted for its loop instead of ending it at once."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[list[str]]:
    """Names of the signals received meanwhile; the loop acts on them at the next step boundary."""
    received: list[str] = []
    caught = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup stays what it says
        caught.append(signal.SIGHUP)

    def note(number: int, _frame: object) -> None:
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in caught}
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        pr_set_pdeathsig = 1  # end with the torchrun agent, even when that is killed by -9
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
