"""Processes that start at once, forked from a server that has imported torch.

A fresh interpreter spends two seconds of CPU time on importing torch, more than most jobs of the
tests train. A forked process has memory, a session and signals of its own, as any other; tests of
the start itself use subprocess.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = ["train_gpt2", "torch._dynamo", "torch.distributed.run", "tests.forked"]


class Forked:
    """`python WORDS...` in the repository's root, with what the tests use of subprocess.Popen.

    log: the file to which it writes, in place of what `communicate` returns.
    """

    def __init__(
        self, words: list[str], environment: Mapping[str, str] = os.environ, log: str = ""
    ) -> None:
        CONTEXT.set_forkserver_preload(IMPORTED)
        self.reader, writer = CONTEXT.Pipe(duplex=False)
        arguments = (words, dict(environment), writer, log)
        self.process = CONTEXT.Process(target=_run, args=arguments, daemon=True)
        self.process.start()
        writer.close()
        self.pid: int = self.process.pid  # type: ignore[assignment]
        self.output = b""

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.process), timeout or 0, self.output)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 600) -> tuple[str, None]:
        """The output of both streams, once all who could write to it have ended."""
        end = time.monotonic() + timeout
        while True:
            if not self.reader.poll(max(0.0, end - time.monotonic())):
                raise subprocess.TimeoutExpired(str(self.process), timeout, self.output)
            part = os.read(self.reader.fileno(), 2**16)
            if not part:
                break
            self.output += part
        self.wait(max(0.1, end - time.monotonic()))
        return self.output.decode(), None


def _run(words: list[str], environment: dict[str, str], output: Connection, log: str) -> None:
    """In the forked process: what the interpreter does with its command line."""
    os.setsid()
    os.chdir(ROOT)
    target = os.open(log, os.O_WRONLY | os.O_APPEND) if log else output.fileno()
    for stream in (1, 2):
        os.dup2(target, stream)
    output.close()
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    from launch import process

    process.RANK_0_PRINTS = 0.5  # no torchrun is here that would end the other ranks
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
