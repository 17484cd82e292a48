"""What a process says."""

import os

from launch.process import print_once


def test_a_reader_that_has_read_enough_is_no_error(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:  # closing it writes what is left, as at exit
        monkeypatch.setattr("sys.stdout", stdout)
        assert print_once("many lines") == 0
