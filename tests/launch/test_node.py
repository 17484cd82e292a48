"""The ranks of one machine, with small programs in the place of the trainer."""

import os
import signal
import socket
import threading
import time

import pytest

from launch import node
from launch.node import train, visible_gpus
from record.hardware import usable_cores
from tests.jobs import ROOT, wait_until

STOPS = f"""
import os, pathlib, sys, time
sys.path.insert(0, {str(ROOT)!r})
from launch.signals import stop_requests
with stop_requests() as received:
    pathlib.Path(sys.argv[1], os.environ["RANK"]).touch()
    while not received:
        time.sleep(0.01)
    time.sleep(0.5)  # as a checkpoint takes; the launcher's second signal comes meanwhile
    os.write(1, f"stopped by {{received[0]}}\\n".encode())  # at once: two ranks write to one file
"""


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """Puts a program in the place of train_gpt2.py."""

    def put(text):
        path = tmp_path / "trainer.py"
        path.write_text(text)
        monkeypatch.setattr(node, "TRAINER", path)

    return put


def signalled(name, folder, patience=20.0):
    """Exit code of two ranks that say in `folder` that they are ready for the signal."""

    def send():
        wait_until(lambda: all((folder / rank).exists() for rank in "01"), 30)
        os.kill(os.getpid(), signal.Signals[name])

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return train([str(folder)], 2, 0, patience)
    finally:
        sender.join()


def test_each_rank_is_told_its_place_as_torchrun_would(trainer, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    trainer(
        "import json, os, pathlib, sys\n"
        "names = 'RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR OMP_NUM_THREADS'\n"
        "said = [os.environ.get(name) for name in names.split()] + sys.argv[2:]\n"
        "pathlib.Path(sys.argv[1], os.environ['RANK']).write_text(json.dumps(said))\n"
    )
    assert train([str(tmp_path), "--seed", "2"], 2, 0, 1.0) == 0
    threads = max(1, usable_cores() // 2)
    for rank in "01":
        said = f'["{rank}", "{rank}", "2", "2", "127.0.0.1", "{threads}", "--seed", "2"]'
        assert (tmp_path / rank).read_text() == said
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert train([str(tmp_path)], 2, 0, 1.0) == 0
    assert '"7"' in (tmp_path / "0").read_text()
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert train([str(tmp_path)], 1, 0, 1.0) == 0
    assert (tmp_path / "0").read_text().endswith('"127.0.0.1", null]'), "torch's own choice"


def test_rank_0_can_listen_at_the_port_and_nobody_else_is_given_it():
    from torch.distributed import TCPStore

    with node._free_port() as port:
        others = [socket.socket() for _ in range(200)]
        for other in others:
            other.bind(("", 0))
            assert other.getsockname()[1] != port
            other.close()
        for _ in range(2):  # again after a restart
            store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
            store.set("key", "value")
            del store


@pytest.mark.parametrize("code", [1, 2, 3])
def test_exit_code_is_that_of_the_rank_that_failed_first_and_the_others_end(trainer, code, capfd):
    trainer(
        f"import os, sys, time\ntime.sleep(60) if os.environ['RANK'] == '0' else sys.exit({code})\n"
    )
    began = time.monotonic()
    assert train([], 2, 0, 1.0) == code
    assert time.monotonic() - began < 30
    assert capfd.readouterr() == ("", ""), "the rank has said why"


def test_a_killed_rank_is_named_with_the_signal(trainer, capfd):
    trainer(
        "import os, time\n"
        "time.sleep(60) if os.environ['RANK'] == '0' else os.kill(os.getpid(), 9)\n"
    )
    assert train([], 2, 0, 1.0) == 128 + signal.SIGKILL
    line = "error: rank 1 was killed by SIGKILL; the same command resumes\n"
    assert capfd.readouterr() == ("", line)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_signal_is_passed_on_to_ranks_that_stop_by_it_with_exit_code_0(
    trainer, tmp_path, name, capfd
):
    found = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the suite itself may run under nohup
    try:
        trainer(STOPS)
        code = signalled(name, tmp_path)
    finally:
        signal.signal(signal.SIGHUP, found)
    assert code == 0
    assert capfd.readouterr() == (f"stopped by {name}\n" * 2, "")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signal_before_training_has_begun_ends_the_ranks_with_one_line(
    trainer, tmp_path, name, code, capfd
):
    trainer(
        "import os, pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1], os.environ['RANK']).touch()\n"
        "time.sleep(60)\n"
    )
    assert signalled(name, tmp_path) == code
    line = f"stopped by {name} before training began; the same command begins again\n"
    assert capfd.readouterr() == ("", line)


def test_ranks_that_do_not_stop_in_time_are_killed(trainer, tmp_path, capfd):
    trainer(STOPS.replace("not received", "True"))
    assert signalled("SIGTERM", tmp_path, patience=0.5) == 137
    line = "error: killed, since 0.5 s after SIGTERM it had not stopped\n"
    assert capfd.readouterr() == ("", line)


def test_the_third_ctrl_c_kills_the_ranks_without_waiting(trainer, tmp_path, capfd):
    trainer(STOPS.replace("not received", "True"))
    sent, send = [], node._send

    def send_and_ask_again(ranks, number):
        """Two more signals, each as soon as the one before has been passed on."""
        send(ranks, number)
        if number == signal.SIGTERM and len(sent) < 2:
            sent.append(number)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "_send", send_and_ask_again)
        began = time.monotonic()
        assert signalled("SIGINT", tmp_path, patience=600) == 137
    assert time.monotonic() - began < 60
    assert capfd.readouterr() == ("", "error: killed by the third Ctrl-C\n")


def test_one_of_many_is_told_their_number_and_gives_its_exit_code(trainer, capfd):
    trainer(
        "import os, sys\nprint(os.environ['WORLD_SIZE'], sys.argv[1:], flush=True)\nsys.exit(2)"
    )
    assert node.one_of(["--print-config"], 4) == 2
    assert capfd.readouterr() == ("4 ['--print-config']\n", "")


def test_a_run_is_restarted_after_a_death_as_often_as_allowed(trainer, tmp_path, capfd):
    trainer(
        "import os, pathlib, sys\n"
        "attempt = os.environ['TORCHELASTIC_RESTART_COUNT']\n"
        "with pathlib.Path(sys.argv[1], 'attempts').open('a') as file:\n"
        "    file.write(attempt)\n"
        "os.kill(os.getpid(), 9) if int(attempt) < int(sys.argv[2]) else sys.exit(0)\n"
    )
    assert train([str(tmp_path), "2"], 1, 2, 1.0) == 0
    assert (tmp_path / "attempts").read_text() == "012"
    assert "restart 2 of 2, from the last checkpoint\n" in capfd.readouterr().err
    assert train([str(tmp_path), "9"], 1, 1, 1.0) == 137
    assert (tmp_path / "attempts").read_text() == "01201"


@pytest.mark.parametrize("code", [2, 3])
def test_a_mistake_and_a_diverged_run_are_not_tried_again(trainer, code, capfd):
    trainer(f"raise SystemExit({code})")
    assert train([], 1, 3, 1.0) == code
    assert capfd.readouterr().err == ""


def test_gpus_are_counted_as_the_environment_says(monkeypatch):
    for given, names in [("0,3", ["0", "3"]), ("GPU-2", ["GPU-2"]), ("", []), ("-1", [])]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert visible_gpus() == names
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")


def test_gpus_are_counted_as_the_driver_says_unless_torch_cannot_use_them(monkeypatch):
    class Driver:
        def nvmlInit_v2(self):  # noqa: N802
            return 0

        def nvmlDeviceGetCount_v2(self, count):  # noqa: N802
            count._obj.value = 3
            return 0

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(node.ctypes, "CDLL", lambda name: Driver())
    monkeypatch.setattr(node, "version", lambda package: "2.13.0")
    assert visible_gpus() == ["0", "1", "2"]
    monkeypatch.setattr(node, "version", lambda package: "2.13.0+cpu")
    assert visible_gpus() == []
