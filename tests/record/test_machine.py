"""What is recorded of the machine that a run shares, or does not."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from record import machine
from record.machine import machine_now, other_runs


@pytest.fixture
def processes(tmp_path, monkeypatch):
    """A function that adds a process of some command line to a /proc of our own."""
    monkeypatch.setattr(machine, "PROCESSES", tmp_path)
    (tmp_path / "version").write_text("not a process")

    def add(pid, *words, cwd="/home/me"):
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "cmdline").write_text("\0".join(words) + "\0")
        (folder / "cwd").symlink_to(cwd)

    return add


def test_each_other_training_counts_once_whatever_its_ranks(processes):
    processes("self", "/x/bin/python3", "-u", "train_gpt2.py", "a.toml", "--seed", "1")
    processes(10, "/x/bin/python3", "-u", "train_gpt2.py", "a.toml", "--seed", "1")  # this one
    assert other_runs() == 0
    for rank in (20, 21):
        processes(rank, "python", "-u", "/x/train_gpt2.py", "a.toml", "--seed", "2")
    assert other_runs() == 1
    processes(30, "python3.11", "train_gpt2.py", "a.toml", "--seed", "1", cwd="/home/you")
    assert other_runs() == 2, "the same words in another folder are another run"


def test_programs_that_only_name_the_trainer_do_not_count(processes):
    processes("self", "python", "train_gpt2.py")
    processes(10, "vim", "train_gpt2.py", "a.toml")
    processes(11, "python", "/x/bin/mypy", "train_gpt2.py")
    processes(12, "bash", "-c", "python /x/train_gpt2.py a.toml")
    processes(13, "python", "-m", "launch", "a.toml")
    processes(14, "")
    assert other_runs() == 0


def test_a_training_beside_this_process_is_seen_for_real(tmp_path):
    """With a script of that name that waits, found in the /proc of this machine."""
    if not machine.PROCESSES.is_dir():
        pytest.skip("this system lists no processes in /proc")
    (tmp_path / "train_gpt2.py").write_text("print(flush=True); input()")
    before = other_runs()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": tmp_path}
    waits = subprocess.Popen([sys.executable, "train_gpt2.py", str(os.getpid())], **pipes)
    with waits:
        waits.stdout.readline()
        key = machine._run(machine.PROCESSES / str(waits.pid))
        during = other_runs()
        waits.stdin.close()
    assert key == (os.getuid(), str(tmp_path), str(os.getpid()))
    assert before is not None
    assert during > 0


def test_state_is_plain_json():
    now = machine_now()
    assert json.loads(json.dumps(now)) == now
    assert now["load_average"] >= 0
    assert now["gpus"] == [] or torch.cuda.is_available()


def test_unknown_where_the_system_lists_no_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "PROCESSES", tmp_path / "none")
    assert other_runs() is None


def test_clock_and_temperature_of_the_gpus_of_this_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    properties = SimpleNamespace(uuid="b2")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    printed = "GPU-a1, 210, 1980, 31\nGPU-b2, 1755, 1980, [N/A]\n"
    done = SimpleNamespace(stdout=printed)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert machine_now()["gpus"] == [
        {"sm_clock_mhz": 1755.0, "max_sm_clock_mhz": 1980.0, "temperature_celsius": None}
    ]

    def absent(*_, **__):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", absent)
    assert machine_now()["gpus"] == []
