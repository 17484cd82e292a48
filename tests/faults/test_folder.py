"""The run's folder turns against it, and so does the clock."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from record import checkpoints
from record.runlog import read_metrics, read_record
from storage.locks import LOCK
from tests.faults.kills import steps_logged
from tests.jobs import assert_same, command, finish, job, only_run, result, wait_until
from train_gpt2 import main


@pytest.fixture
def disk(tmp_path):
    """A folder that is a mount of its own; `root` alone can make it read-only for root, too."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=50m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount here (needs root, whom permissions do not bind)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, mode: str) -> bool:
    """With "ro" read-only, as a file system becomes after an error; False where it is busy."""
    done = subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], capture_output=True)
    return done.returncode == 0


def test_read_only_run_folder_is_named_before_training(shards, disk, capsys):
    arguments = command(shards, disk / "runs")
    assert remount(disk, "ro")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "Read-only file system" in line
    assert "--log.dir" in line
    assert remount(disk, "rw")
    assert main(arguments) == 0


def test_folder_that_becomes_read_only_ends_the_run_and_loses_nothing(shards, disk, tmp_path):
    length = ["--train.total_steps", "150", "--eval.every", "150", "--checkpoint.every", "20"]
    arguments = command(shards, disk / "runs") + length
    process = job(arguments)
    wait_until(lambda: steps_logged(disk / "runs") > 30)
    folder = str(only_run(disk / "runs") / "checkpoints")
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    wait_until(lambda: remount(Path(folder), "bind,ro"))  # it is busy during a checkpoint
    output, _ = process.communicate(timeout=100)
    subprocess.run(["umount", "--lazy", folder], check=True)
    assert process.returncode == 2, output
    line = output.splitlines()[-1]
    assert line.startswith("error: stopped at step")
    assert "Read-only file system" in line
    kept = checkpoints.newest_whole(Path(folder))
    assert kept
    assert f"from step {checkpoints.step_of(kept)}" in finish(job(arguments))
    main(command(shards, tmp_path / "calm") + length)
    assert_same(result(tmp_path / "calm"), result(disk / "runs"))


def test_lock_of_a_dead_owner_holds_nobody_up(tiny, tmp_path, capsys):
    """SIGKILL leaves the file with the owner's name; the kernel's lock died with the process."""
    process = job([*tiny, "--train.total_steps", "4000"])
    wait_until(lambda: steps_logged(tmp_path / "runs") > 3)
    directory = only_run(tmp_path / "runs")
    owner = (directory / LOCK).read_text()
    assert f"pid {process.pid} " in owner
    process.kill()
    process.wait()
    assert (directory / LOCK).read_text() == owner  # stale
    again = job([*tiny, "--train.total_steps", "4000"])
    wait_until(lambda: len(read_record(directory)["launches"]) == 2)
    assert f"pid {again.pid} " in (directory / LOCK).read_text()
    again.kill()


@pytest.mark.slow
def test_clock_that_goes_backwards_changes_nothing_but_the_dates(shards, tmp_path):
    """Two days back in the middle of the run, for all of C and Python; monotonic clocks go on."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if not library or not shutil.which("faketime"):
        pytest.skip("needs libfaketime (Debian: faketime)")
    length = ["--train.total_steps", "60", "--eval.every", "60", "--checkpoint.every", "20"]
    offset = tmp_path / "offset"
    offset.write_text("+0d")
    fake = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(offset)}
    fake |= {"FAKETIME_CACHE_DURATION": "1", "DONT_FAKE_MONOTONIC": "1"}
    process = job(command(shards, tmp_path / "runs") + length, env=os.environ | fake)
    wait_until(lambda: steps_logged(tmp_path / "runs") > 5)
    offset.write_text("-2d")
    finish(process)
    (launch,) = read_record(only_run(tmp_path / "runs"))["launches"]
    assert launch["ended"] < launch["started"]  # so the clock did go backwards
    lines = [x for x in read_metrics(only_run(tmp_path / "runs")) if "train/loss" in x]
    seconds = [x["time/train_seconds"] for x in lines]
    assert seconds == sorted(seconds)
    assert 0 < seconds[-1] < 600
    main(command(shards, tmp_path / "calm") + length)
    assert_same(result(tmp_path / "calm"), result(tmp_path / "runs"))
