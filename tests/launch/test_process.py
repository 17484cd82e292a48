"""What a process says."""

import os
from types import SimpleNamespace

import pytest
import torch

from configs import load
from launch.process import Process, print_once


def test_a_reader_that_has_read_enough_is_no_error(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:  # closing it writes what is left, as at exit
        monkeypatch.setattr("sys.stdout", stdout)
        assert print_once("many lines") == 0


A100 = ("A100-40GB", (8, 0), 108)


@pytest.mark.parametrize(
    ("other", "accepted", "equal"),
    [
        (("A100-80GB", (8, 0), 108), False, False),
        (("A100-80GB", (8, 0), 108), True, True),
        (("A30", (8, 0), 56), True, False),
        (("L40", (8, 9), 108), True, False),
    ],
)
def test_ranks_have_gpus_that_add_alike(monkeypatch, other, accepted, equal):
    config = load(["--launch.accept_other_hardware", str(accepted).lower()])
    process, found = Process(0, 0, 2, torch.device("cuda", 0)), []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    for name, (major, minor), many in (A100, other):
        built = SimpleNamespace(major=major, minor=minor, multi_processor_count=many)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, built=built: built)
        found.append(process.hardware_of_ranks(config))
    assert (found[0] == found[1]) is equal


def test_ranks_with_processors_of_any_make_train_together():
    config = load(["--launch.accept_other_hardware", "true"])
    process = Process(0, 0, 2, torch.device("cpu"))
    assert process.hardware_of_ranks(config) == {"device": "cpu", "dtype": "float32"}
