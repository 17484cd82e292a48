"""Training goes on while a checkpoint is written, and every promise of a checkpoint is kept."""

import os
from pathlib import Path

import pytest

import train_gpt2
from record import checkpoints
from record.runlog import read_metrics, read_record, read_summary
from tests.faults.kills import steps_logged
from tests.jobs import ROOT, assert_same, command, only_run, ranks, result, wait_until
from tests.test_resume import interrupted
from train_gpt2 import main

KEEP = ["--checkpoint.keep", "9"]


def slow_at_step_4(patch, runs):
    """Let the checkpoint of step 4 have its name once six updates are logged; returns all steps."""
    names, publish = [], checkpoints.publish

    def slow(file, path):
        if checkpoints.step_of(path) == 4:
            wait_until(lambda: steps_logged(runs) >= 6 + 2, 30)  # and two evaluations
        names.append(checkpoints.step_of(path))
        publish(file, path)

    patch.setattr(checkpoints, "publish", slow)
    return names


def at_step_4(runs):
    """The checkpoint of step 4."""
    found = checkpoints.found(only_run(runs) / "checkpoints")
    return checkpoints.load(next(path for path in found if checkpoints.step_of(path) == 4))


def test_training_goes_on_while_a_checkpoint_is_written_and_it_is_of_its_own_step(
    tiny, tmp_path, monkeypatch
):
    calm, runs = tmp_path / "calm", tmp_path / "runs"
    waiting = ["--log.dir", str(calm), "--checkpoint.background", "false"]
    assert main([*tiny, *KEEP, *waiting]) == 0
    names = slow_at_step_4(monkeypatch, runs)
    assert main([*tiny, *KEEP]) == 0
    assert names == [4, 8, 12]
    assert only_run(runs).name == only_run(calm).name  # no part of the run's identity
    assert_same(result(calm), result(runs))
    a, b = at_step_4(calm), at_step_4(runs)
    assert_same([a.model, a.optimizer], [b.model, b.optimizer])
    assert (b.progress.step, b.progress.metrics) == (4, a.progress.metrics)
    lines = (only_run(runs) / "metrics.jsonl").read_bytes()[: b.progress.log_offset].splitlines()
    assert len(lines) == 4 + 1  # four updates, one evaluation


def test_a_run_resumes_from_a_checkpoint_that_was_written_while_it_went_on(
    tiny, tmp_path, monkeypatch
):
    calm, runs = tmp_path / "calm", tmp_path / "runs"
    assert main([*tiny, "--log.dir", str(calm)]) == 0
    with monkeypatch.context() as patch:
        slow_at_step_4(patch, runs)
        assert interrupted([*tiny, *KEEP], at=7) == 0
    for later in checkpoints.found(only_run(runs) / "checkpoints")[:-1]:
        later.unlink()
    assert main([*tiny, *KEEP]) == 0
    assert read_record(only_run(runs))["launches"][1]["environment"]["start_step"] == 4
    assert_same(result(calm), result(runs))


def test_a_signal_during_a_write_waits_for_it_and_for_the_last_checkpoint(
    tiny, tmp_path, monkeypatch, capsys
):
    names = slow_at_step_4(monkeypatch, tmp_path / "runs")
    assert interrupted(tiny, at=6) == 0
    assert names == [4, 7]
    assert "stopped by SIGTERM at step 7" in capsys.readouterr().out
    folder = only_run(tmp_path / "runs") / "checkpoints"
    assert [checkpoints.step_of(path) for path in checkpoints.found(folder)] == [7, 4]
    assert not (folder / "partial").exists()


def test_the_lines_that_a_checkpoint_counts_are_synced_before_it_has_a_name(
    tiny, tmp_path, monkeypatch
):
    """A power cut can take unsynced lines; a checkpoint that counts them could not be resumed."""
    synced, counted, sync, publish = [0], [], os.fsync, checkpoints.publish

    def note(number):
        sync(number)
        if (path := Path(f"/proc/self/fd/{number}").readlink()).name == "metrics.jsonl":
            synced.append(path.stat().st_size)

    def check(file, path):
        file.flush()
        saved = checkpoints.load(path.parent / "partial")
        counted.append((saved.progress.step, saved.progress.log_offset, synced[-1]))
        publish(file, path)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(checkpoints, "publish", check)
    assert main(tiny) == 0
    assert [step for step, _, _ in counted] == [4, 8, 12]
    assert all(0 < offset <= safe for _, offset, safe in counted)


DISK = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import train_gpt2
from record import checkpoints
publish = checkpoints.publish
def full(file, path):
    if checkpoints.step_of(path) == 8:
        raise OSError(28, "No space left on device")
    publish(file, path)
checkpoints.publish = full
sys.exit(train_gpt2.main(sys.argv[1:]))
"""


def test_a_disk_that_is_full_for_the_thread_stops_all_ranks_with_one_line(shards, tmp_path):
    arguments = [*command(shards, tmp_path / "runs"), "--train.total_steps", "400"]
    script = tmp_path / "disk.py"
    script.write_text(DISK)
    processes = ranks(arguments, 2, program=str(script))
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], outputs
    directory = only_run(tmp_path / "runs")
    logged = [x["step"] for x in read_metrics(directory) if "train/loss" in x][-1] + 1
    assert outputs[0].splitlines()[-1] == (
        f"error: stopped at step {logged}: cannot write a checkpoint in {directory}/checkpoints: "
        "[Errno 28] No space left on device; earlier checkpoints are intact: make room, then give "
        "the same command again"
    )
    assert "error" not in outputs[1]
    assert 8 < logged < 400
    assert read_summary(directory) is None
    assert [path.name[:13] for path in (directory / "checkpoints").iterdir()] == ["step-00000004"]


def test_a_bug_on_the_thread_is_no_user_error_and_is_not_lost(tiny, tmp_path, monkeypatch):
    def broken(file, path):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(checkpoints, "publish", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main([*tiny, "--train.total_steps", "400"])
    directory = only_run(tmp_path / "runs")
    assert len([x for x in read_metrics(directory) if "train/loss" in x]) < 400
    assert read_record(directory)["launches"][-1]["status"] == "failed"


def test_a_resumed_run_holds_nothing_of_the_file_from_which_it_was_read(
    tiny, tmp_path, monkeypatch
):
    """A removed file would keep its space on the disk, and on a network be lost to the run."""
    calm = ["--log.dir", str(tmp_path / "calm")]
    assert main([*tiny, *calm]) == 0
    assert interrupted(tiny, at=6) == 0
    maps, loop = [], train_gpt2.loop

    def spy(*given):
        maps.append(Path("/proc/self/maps").read_text())
        return loop(*given)

    monkeypatch.setattr(train_gpt2, "loop", spy)
    assert main(tiny) == 0
    assert len(maps) == 1
    assert "step-000" not in maps[0]
    assert_same(result(tmp_path / "calm"), result(tmp_path / "runs"))
