"""The ranks of one run on this machine: started together, watched, and ended together.

Each rank is `python train_gpt2.py` with the environment variables that torchrun would set, so the
trainer cannot tell the difference. torchrun itself imports torch for its agent before it starts
the ranks, gives exit code 1 whatever theirs are, and ends with a traceback after a signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from launch.signals import end_with, stop_requests
from record.hardware import usable_cores, version

TRAINER = Path(__file__).parent.parent / "train_gpt2.py"
TICK = 0.05  # s between looks at the ranks
AFTER_FAILURE = 30.0  # s for the other ranks to say who failed, as torchrun allows
ENDED = (0, 2, 3)  # exit codes after which another attempt would end in the same way

Rank = subprocess.Popen[bytes]


def visible_gpus() -> list[str]:
    """This machine's GPUs, named as CUDA_VISIBLE_DEVICES takes them; asks torch only on AMD's."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    count = ctypes.c_int()
    if Path("/dev/kfd").exists():
        import torch  # takes seconds

        count.value = torch.cuda.device_count()
    elif "+cpu" not in (version("torch") or ""):
        with contextlib.suppress(OSError):  # no driver
            driver = ctypes.CDLL("libnvidia-ml.so.1")
            if driver.nvmlInit_v2() == 0:
                driver.nvmlDeviceGetCount_v2(ctypes.byref(count))
    return [str(i) for i in range(count.value)]


def train(words: Sequence[str], nproc: int, max_restarts: int, patience: float) -> int:
    """Run `train_gpt2.py WORDS` in `nproc` processes; returns the exit code.

    That is the ranks' own, or 128 + N if signal N ended a rank, or asked to stop before training
    began. patience: seconds from a request to stop until the ranks are killed.
    """
    with _free_port() as port, stop_requests() as signals:
        for attempt in range(max_restarts + 1):
            ranks = [_start(words, i, nproc, port, attempt) for i in range(nproc)]
            try:
                code = _watch(ranks, signals, patience)
            finally:
                _send(ranks, signal.SIGKILL)
            if code in ENDED or signals or attempt == max_restarts:
                break
            _say(f"restart {attempt + 1} of {max_restarts}, from the last checkpoint")
    return code


def one_of(words: Sequence[str], nproc: int) -> int:
    """Run `train_gpt2.py WORDS`, which meets no other rank, as one of `nproc`; its exit code."""
    environment = os.environ | {"WORLD_SIZE": str(nproc)}
    return subprocess.call([sys.executable, str(TRAINER), *words], env=environment)


@contextlib.contextmanager
def _free_port() -> Iterator[int]:
    """A port where the ranks can meet, and which no other process is given meanwhile.

    It is bound here without listening, so that rank 0's store can: both reuse addresses.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))
        yield holder.getsockname()[1]


def _start(words: Sequence[str], rank: int, nproc: int, port: int, attempt: int) -> Rank:
    """One rank, in a session of its own: Ctrl-C reaches this process, which passes it on."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": nproc, "LOCAL_WORLD_SIZE": nproc}
    own |= {"TORCHELASTIC_RESTART_COUNT": attempt, "MASTER_PORT": port}
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1"} | {k: str(v) for k, v in own.items()}
    if nproc > 1:  # a single process has torch's own choice
        environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // nproc)))
    end_with_launcher = end_with(os.getpid())

    def arrange() -> None:
        end_with_launcher()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # until the trainer has a handler

    return subprocess.Popen(
        [sys.executable, "-u", str(TRAINER), *words],
        env=environment,
        start_new_session=True,
        preexec_fn=arrange,
    )


def _watch(ranks: list[Rank], signals: list[str], patience: float) -> int:
    """Wait until all ranks have ended; returns the exit code, that of the first that failed.

    Passes `signals` on, and asks the others to end when one has failed.
    """
    code, passed_on, deadline = 0, 0, math.inf
    while True:
        living = [rank for rank in ranks if rank.poll() is None]
        failed = [(rank.returncode, i) for i, rank in enumerate(ranks) if rank.returncode]
        if failed and not code:
            code = _failure(*min(failed), signals)
            _send(ranks, signal.SIGTERM)
            deadline = min(deadline, time.monotonic() + AFTER_FAILURE)
        if not living:
            return code
        impatient = signals.count("SIGINT") > 2  # the third Ctrl-C
        for name in signals[passed_on:] if not impatient else ():
            # A rank that trains notes both and stops by the first. One that has not begun to
            # ignores Ctrl-C, of which Python would make a traceback, and ends by the second.
            _send(ranks, signal.Signals[name])
            time.sleep(TICK)  # given both at once, a busy rank may note the second first
            _send(ranks, signal.SIGTERM)
            deadline = min(deadline, time.monotonic() + patience)
            passed_on += 1
        if impatient or time.monotonic() > deadline:
            if not code:
                late = f", since {patience:g} s after {signals[0]} it had not stopped"
                _say(f"error: killed{' by the third Ctrl-C' if impatient else late}")
                code = 128 + signal.SIGKILL
            _send(ranks, signal.SIGKILL)
        time.sleep(TICK)


def _failure(code: int, rank: int, signals: list[str]) -> int:
    """The exit code of the run if `rank` ended with `code`; prints why if the rank could not.

    A code below 0 is minus the signal that ended it.
    """
    if code > 0:
        return code
    if signals and code == -signal.SIGTERM:
        _say(f"stopped by {signals[0]} before training began; the same command begins again")
        return 128 + signal.Signals[signals[0]]
    _say(f"error: rank {rank} was killed by {signal.Signals(-code).name}; the same command resumes")
    return 128 - code


def _send(ranks: list[Rank], number: int) -> None:
    """Send a signal to the ranks that live; SIGKILL also to the processes that they started."""
    for rank in ranks:
        if rank.poll() is None and number == signal.SIGKILL:
            os.killpg(rank.pid, number)
        rank.send_signal(number)  # does nothing if the rank has ended


def _say(text: str) -> None:
    """One line for the user."""
    print(text, file=sys.stderr, flush=True)
