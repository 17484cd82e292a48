"""How a process is asked to stop, and how it ends when its parent dies."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Requests(list[str]):
    """Names of the signals received so far; the caller stops at the next point where it can.

    at_once: whether Ctrl-C raises KeyboardInterrupt where the process is: nothing is to be saved.
    """

    at_once = False


@contextmanager
def stop_requests() -> Iterator[Requests]:
    """The requests to stop, noted as they come."""
    received = Requests()
    caught = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under nohup it stays ignored
        caught.append(signal.SIGHUP)

    def note(number: int, _frame: object) -> None:
        received.append(signal.Signals(number).name)
        if received.at_once and number == signal.SIGINT:
            received.at_once = False  # once: what cleans up is not disturbed
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in caught}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ended_by_the_third_ctrl_c() -> Iterator[None]:
    """End the process at the third SIGINT, also while it waits for another rank or a kernel.

    Python's own handlers wait for the main thread; this is a thread that reads each signal's number
    from a pipe, into which they are written as they come.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def count() -> None:
        seen = 0
        while (number := os.read(reader, 1)) != b"\0":
            seen += number[0] == signal.SIGINT
            if seen == 3:
                os.write(2, b"error: ended by the third Ctrl-C; the same command resumes\n")
                os._exit(128 + signal.SIGINT)

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writer, b"\0")
        thread.join()
        os.close(reader)
        os.close(writer)


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
