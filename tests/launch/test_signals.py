"""How a process is asked to stop."""

import signal

import pytest

from launch.signals import stop_requests

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
