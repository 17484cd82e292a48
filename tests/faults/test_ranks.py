"""One machine, two ranks: one dies, freezes or takes its time; somebody wants them to stop."""

import os
import signal
import time

import pytest

from record import checkpoints
from record.runlog import read_metrics, read_record, read_summary
from tests.faults.conftest import launched
from tests.faults.kills import steps_logged
from tests.jobs import (
    ROOT,
    assert_same,
    children,
    command,
    finish,
    job,
    only_run,
    ranks,
    result,
    wait_until,
)
from tests.record.test_wandb_mirror import inspect

LONG = ["--train.total_steps", "4000", "--eval.every", "4000", "--checkpoint.every", "0"]


def worker(launcher, rank):
    """Process id of a rank: they are started in order."""
    return sorted(children(launcher.pid))[rank]


def test_a_killed_rank_is_named_and_the_run_goes_on_as_often_as_allowed(shards, tmp_path, host):
    length = ["--train.total_steps", "120", "--eval.every", "120", "--checkpoint.every", "10"]
    runs = tmp_path / "killed"
    arguments = command(shards, runs) + length
    process = launched("--nproc", "2", "--max-restarts", "1", *arguments)
    for rank, at in ((1, 15), (0, 45)):
        wait_until(lambda at=at: steps_logged(runs) > at)
        before, (first, second) = steps_logged(runs), sorted(children(process.pid))
        began = time.monotonic()
        os.kill((first, second)[rank], signal.SIGKILL)
        if rank == 1:
            wait_until(lambda: len(read_record(only_run(runs))["launches"]) > 1)
            wait_until(lambda n=before: steps_logged(runs) > n)
            print(f"restarted after {time.monotonic() - began:.1f} s")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL  # the second death is one too many
    assert f"error: lost rank 1 on {host}" in output, output
    assert f"error: lost rank 0 on {host}" in output
    launches = read_record(only_run(runs))["launches"]
    assert [x["restart"] for x in launches] == [0, 1]
    assert launches[0]["status"] == "failed"
    assert f"lost rank 1 on {host}" in launches[0]["error"]
    assert launches[1]["environment"]["start_step"] > 0
    for both in (arguments, [*command(shards, tmp_path / "calm"), *length]):
        for rank in ranks(both, 2):
            finish(rank)
    assert_same(result(tmp_path / "calm"), result(runs))


def test_a_rank_that_fails_of_itself_is_named_with_its_reason(shards, tmp_path, host):
    spy = tmp_path / "spy.py"
    spy.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import train_gpt2\n"
        "from data import Prefetcher\n"
        "take = Prefetcher.__next__\n"
        "def broken(self, seen=[]):\n"
        "    seen.append(0)\n"
        "    if os.environ['RANK'] == '1' and len(seen) == 5:\n"
        "        raise ValueError('no more')\n"
        "    return take(self)\n"
        "Prefetcher.__next__ = broken\n"
        "sys.exit(train_gpt2.main(sys.argv[1:]))\n"
    )
    both = ranks(command(shards, tmp_path / "runs"), 2, program=str(spy))
    output = "".join(rank.communicate(timeout=60)[0] for rank in both)
    assert [rank.returncode for rank in both] == [1, 1]
    assert f"error: rank 1 on {host} failed: ValueError: no more" in output
    assert "lost rank" not in output
    (launch,) = read_record(only_run(tmp_path / "runs"))["launches"]
    assert "ValueError: no more" in launch["error"]


def test_a_frozen_rank_is_named_within_the_time_out(shards, tmp_path, host):
    arguments = [*command(shards, tmp_path / "runs"), *LONG, "--launch.timeout_seconds", "4"]
    process = launched("--nproc", "2", *arguments)
    wait_until(lambda: steps_logged(tmp_path / "runs") > 3)
    survivor, frozen = worker(process, 0), worker(process, 1)
    began = time.monotonic()
    os.kill(frozen, signal.SIGSTOP)
    line = next(x for x in process.stdout if x.startswith("error: "))
    assert time.monotonic() - began < 60
    print(f"frozen: {time.monotonic() - began:.1f} s")
    assert line == f"error: lost rank 1 on {host}: no sign of life for 4 s\n"
    wait_until(lambda: survivor not in children(process.pid))  # its code is the run's
    os.kill(frozen, signal.SIGKILL)  # as the launcher would after 30 s
    process.communicate(timeout=60)
    assert process.returncode == 1


def test_checkpoint_and_evaluation_longer_than_the_time_out_are_waited_for(shards, tmp_path):
    """The disk of rank 0 takes 6 s to sync a checkpoint, rank 1 as long to evaluate."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import os, sys, time\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import train_gpt2\n"
        "from data import HeldOut\n"
        "sync, batches, waits = os.fsync, HeldOut.batches, []\n"
        "def slow_disk(file):\n"
        "    if os.readlink(f'/proc/self/fd/{file}').endswith('partial'):\n"
        "        time.sleep(6)\n"
        "    sync(file)\n"
        "def slow_eval(self, rows):\n"
        "    if os.environ['RANK'] == '1' and not waits:\n"
        "        waits.append(time.sleep(6))\n"
        "    return batches(self, rows)\n"
        "os.fsync, HeldOut.batches = slow_disk, slow_eval\n"
        "sys.exit(train_gpt2.main(sys.argv[1:]))\n"
    )
    flags = ["--launch.timeout_seconds", "2", "--train.total_steps", "4"]
    for rank in ranks(command(shards, tmp_path / "runs") + flags, 2, program=str(slow)):
        finish(rank)
    directory = only_run(tmp_path / "runs")
    assert read_summary(directory)["status"] == "finished"
    assert next(x for x in read_metrics(directory) if "val/loss" in x)["time/eval_seconds"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_a_signal_to_the_launcher_is_a_checkpoint_and_a_clear_last_line(shards, tmp_path, name):
    arguments = [*command(shards, tmp_path / "runs"), *LONG, "--log.wandb", "offline"]
    process = launched("--nproc", "2", *arguments)
    wait_until(lambda: steps_logged(tmp_path / "runs") > 3)
    began = time.monotonic()
    process.send_signal(signal.Signals[name])
    directory = only_run(tmp_path / "runs")
    wait_until(lambda: checkpoints.found(directory / "checkpoints"))
    saved = time.monotonic() - began
    output, _ = process.communicate(timeout=60)
    print(
        f"{name}: checkpoint after {saved:.1f} s, all over after {time.monotonic() - began:.1f} s"
    )
    last = output.splitlines()[-1]
    assert f"stopped by {name} at step" in last
    assert "the same command resumes there" in last
    assert process.returncode == 0
    assert read_summary(directory)["status"] == "stopped"
    assert [r["type"] for r in inspect(directory)].count("exit") == 1  # the W&B run is closed


def test_ctrl_c_in_a_terminal_stops_a_plain_run_with_exit_code_0(shards, tmp_path):
    process = job([*command(shards, tmp_path / "runs"), *LONG])
    wait_until(lambda: steps_logged(tmp_path / "runs") > 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert "stopped by SIGINT at step" in finish(process)


def test_when_the_launcher_is_killed_its_ranks_checkpoint_and_end(shards, tmp_path):
    process = launched("--nproc", "2", *command(shards, tmp_path / "runs"), *LONG)
    wait_until(lambda: steps_logged(tmp_path / "runs") > 3)
    process.kill()
    output, _ = process.communicate(timeout=30)  # the pipe closes when the last rank is gone
    assert "stopped by SIGTERM" in output
    assert len(checkpoints.found(only_run(tmp_path / "runs") / "checkpoints")) == 1
