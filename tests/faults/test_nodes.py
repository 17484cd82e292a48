"""Two machines by launch/multinode.sh: what one does when the other is lost, or is not like it."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from record import checkpoints
from record.runlog import read_metrics, read_record, read_summary
from tests.faults.conftest import processes_of
from tests.faults.kills import steps_logged
from tests.jobs import ROOT, command, only_run, wait_until

SLOW = pytest.mark.slow
LONG = ["--train.total_steps", "4000", "--eval.every", "4000", "--checkpoint.every", "50"]


def ended(processes, within):
    """(exit codes, seconds until the last one ended)."""
    began = time.monotonic()
    codes = [p.wait(timeout=within) for p in processes]
    return codes, time.monotonic() - began


def errors(nodes, node):
    """The lines of error that a node's user sees."""
    return [line for line in nodes.output(node).splitlines() if line.startswith("error: ")]


@SLOW
def test_two_nodes_train_with_nothing_set_but_the_address(nodes, shards, tmp_path):
    arguments = command(shards, tmp_path / "runs")
    codes, _ = ended([nodes.start(n, arguments) for n in (0, 1)], 60)
    assert codes == [0, 0], nodes.output(0) + nodes.output(1)
    (launch,) = read_record(only_run(tmp_path / "runs"))["launches"]
    assert (launch["status"], launch["restart"], launch["host"]) == ("finished", 0, "alpha")
    assert launch["environment"]["world_size"] == 2


@pytest.mark.parametrize(
    "odd",
    [
        "code",
        "absent",
        pytest.param("setting", marks=SLOW),
        pytest.param("NNODES", marks=SLOW),
        pytest.param("address", marks=SLOW),
    ],
)
def test_a_node_unlike_the_others_ends_all_of_them_with_its_name(nodes, shards, tmp_path, odd):
    began = time.monotonic()
    arguments = command(shards, tmp_path / "runs")
    root, flags, settings = ROOT, [], {}
    if odd == "setting":
        flags, words = ["--optimizer.lr", "0.5"], ["beta (rank 1)", "optimizer.lr is 0.5 there"]
    elif odd == "code":
        root = tmp_path / "checkout"
        ignore = shutil.ignore_patterns(".*", "runs", "tokens", "docs", "tests")
        shutil.copytree(ROOT, root, ignore=ignore)
        with (root / "optim/lamb.py").open("a") as file:
            file.write("\n# another version\n")
        words = ["beta (rank 1)", "the code of optim/lamb.py"]
    elif odd == "NNODES":
        settings, words = {"NNODES": 4}, ["beta was started with NNODES=4, alpha with 2"]
    else:
        words = ["node 1 of 2 did not come to alpha, port 29500, within 10 s"]
        settings = {"MASTER_ADDR": "10.77.0.9", "JOIN_SECONDS": 10}
    both = [nodes.start(0, arguments, JOIN_SECONDS=10)]
    if odd != "absent":
        both.append(nodes.start(1, arguments + flags, root, **settings))
    codes, _ = ended(both, 60)
    assert time.monotonic() - began < 60
    assert 0 not in codes
    lines = [errors(nodes, n) for n in range(len(both))]
    assert [len(x) for x in lines] == [1] * len(both), nodes.output(0)
    assert all(word in lines[0][0] for word in words), lines
    if odd == "address":
        assert "beta got no answer from node 0 at 10.77.0.9:29500 within 10 s" in lines[1][0]
    elif odd != "absent":
        assert lines[1] == lines[0]
    assert not (tmp_path / "runs").exists()  # nothing was begun


@pytest.mark.parametrize(
    "loss",
    [
        "machine",
        pytest.param("cable", marks=SLOW),
        pytest.param("cable and frozen", marks=SLOW),
    ],
)
def test_a_lost_node_is_named_and_the_rest_ends_within_the_time_out(
    nodes, shards, tmp_path, loss, record_property
):
    arguments = [*command(shards, tmp_path / "runs"), *LONG, "--launch.timeout_seconds", "6"]
    both = [nodes.start(n, arguments) for n in (0, 1)]
    wait_until(lambda: steps_logged(tmp_path / "runs") > 3)
    mine = {pid: host_of(pid) for pid in processes_of(tmp_path)}
    lost = [pid for pid, name in mine.items() if name == b"beta"]
    assert lost
    if loss == "machine":
        nodes.cut()
        for pid in lost:
            os.kill(pid, signal.SIGKILL)
    elif loss == "cable":
        nodes.cut()
    else:
        for pid in lost:
            os.kill(pid, signal.SIGSTOP)
        nodes.cut()
    codes, seconds = ended(both[:1], 40)
    record_property("seconds", seconds)
    print(f"{loss}: {seconds:.1f} s")
    assert codes == [1]
    (line,) = errors(nodes, 0)
    assert "lost rank 1 on beta" in line
    if loss == "cable":
        ended(both[1:], 40)
        (line,) = errors(nodes, 1)
        assert "lost rank 0 on alpha" in line
    for pid in lost:
        if loss == "cable and frozen":
            os.kill(pid, signal.SIGKILL)


def host_of(pid):
    """The host name that a process sees."""
    asked = ["nsenter", f"--uts=/proc/{pid}/ns/uts", "hostname"]
    return subprocess.run(asked, capture_output=True, check=True, timeout=10).stdout.strip()


@SLOW
def test_elastic_run_goes_on_with_the_nodes_that_are_left(nodes, shards, tmp_path):
    length = ["--train.total_steps", "150", "--eval.every", "150", "--checkpoint.every", "10"]
    arguments = command(shards, tmp_path / "runs") + length
    both = [nodes.start(n, arguments, NNODES="1:2") for n in (0, 1)]
    wait_until(lambda: steps_logged(tmp_path / "runs") > 20)
    for pid in processes_of(tmp_path):
        if host_of(pid) == b"beta":
            os.kill(pid, signal.SIGKILL)
    codes, seconds = ended(both[:1], 90)
    print(f"elastic: {seconds:.1f} s")
    assert codes == [0], nodes.output(0)
    directory = only_run(tmp_path / "runs")
    launches = read_record(directory)["launches"]
    assert [x["environment"]["world_size"] for x in launches] == [2, 1]
    assert launches[1]["environment"]["start_step"] > 0
    steps = [x["step"] for x in read_metrics(directory) if "train/loss" in x]
    assert steps == list(range(150))
    assert read_summary(directory)["status"] == "finished"
    assert checkpoints.newest_whole(directory / "checkpoints")
