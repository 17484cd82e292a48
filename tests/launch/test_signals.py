"""How a process is asked to stop."""

import signal
import subprocess
import sys

import pytest

from launch.signals import stop_requests
from tests.jobs import ROOT

NAMES = ["SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP"]


@pytest.mark.parametrize("name", NAMES)
def test_signal_is_noted_by_name_and_the_old_handler_comes_back(name):
    number = signal.Signals[name]
    found = signal.signal(number, signal.SIG_DFL)  # the suite itself may run under nohup
    try:
        with stop_requests() as received:
            assert received == []
            signal.raise_signal(number)
            signal.raise_signal(number)
            assert received == [name, name]
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, found)


def test_hang_up_stays_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as received:
            signal.raise_signal(signal.SIGHUP)
            assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_interrupts_where_nothing_is_to_be_saved_and_else_is_noted():
    with stop_requests() as received:
        signal.raise_signal(signal.SIGINT)
        received.at_once = True
        signal.raise_signal(signal.SIGTERM)  # a scheduler's: it gets a checkpoint in any case
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # what cleans up is left alone
    assert received == ["SIGINT", "SIGTERM", "SIGINT", "SIGINT"]


BUSY = """
import hashlib
from launch.signals import ended_by_the_third_ctrl_c, stop_requests
with ended_by_the_third_ctrl_c(), stop_requests():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes in C: no handler of Python's runs
"""


def test_the_third_ctrl_c_ends_a_process_that_runs_no_python():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", BUSY], cwd=ROOT, **pipes)
    try:
        assert process.stdout.readline() == "ready\n"
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGINT
    assert said == "error: ended by the third Ctrl-C; the same command resumes\n"
