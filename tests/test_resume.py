"""An interrupted run gives the same bits as one that was not, whatever interrupts it."""

import json
import shutil
import signal
from pathlib import Path

import pytest

import optim
import train_gpt2
from configs import load
from record import checkpoints, hardware
from record.runlog import RunLog, read_metrics, read_record, read_summary
from tests.faults.kills import steps_logged
from tests.jobs import (
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
from train_gpt2 import main

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        "SIGTERM",
        "SIGINT",
        "SIGUSR1",
        pytest.param("SIGUSR2", marks=SLOW),
        pytest.param("SIGHUP", marks=SLOW),
    ],
)
def test_signal_checkpoints_at_the_next_step_and_the_same_command_goes_on(shards, tmp_path, name):
    length = ["--train.total_steps", "200", "--eval.every", "200", "--checkpoint.every", "0"]
    arguments = command(shards, tmp_path / "runs") + length
    process = job(arguments)
    wait_until(lambda: steps_logged(tmp_path / "runs") > 5)
    process.send_signal(signal.Signals[name])
    process.send_signal(signal.Signals[name])  # schedulers repeat themselves
    output = finish(process)
    directory = only_run(tmp_path / "runs")
    assert f"stopped by {name}" in output
    assert read_summary(directory)["status"] == "stopped"
    logged = [x["step"] for x in read_metrics(directory) if "train/loss" in x][-1] + 1
    assert [p.name[:13] for p in checkpoints.found(directory / "checkpoints")] == [
        f"step-{logged:08d}"
    ]
    if name == "SIGTERM":
        assert f"from step {logged}" in finish(job(arguments))
        main(command(shards, tmp_path / "calm") + length)
        assert_same(result(tmp_path / "calm"), result(tmp_path / "runs"))


def test_signal_to_one_rank_stops_both_at_the_same_step(shards, tmp_path):
    length = ["--train.total_steps", "4000", "--eval.every", "4000", "--checkpoint.every", "0"]
    first, second = ranks(command(shards, tmp_path / "runs") + length, 2)
    wait_until(lambda: steps_logged(tmp_path / "runs") > 3)
    second.send_signal(signal.SIGUSR1)
    assert "stopped by a signal to another process" in finish(first)
    finish(second)
    assert read_summary(only_run(tmp_path / "runs"))["status"] == "stopped"


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=SLOW)])
def test_stopping_torchrun_stops_its_ranks_with_a_checkpoint(shards, tmp_path, name):
    length = ["--train.total_steps", "4000", "--eval.every", "4000", "--checkpoint.every", "0"]
    process = job(command(shards, tmp_path / "runs") + length, nproc=2)
    wait_until(lambda: steps_logged(tmp_path / "runs") > 3)
    process.send_signal(signal.Signals[name])
    output, _ = process.communicate(timeout=60)
    assert f"stopped by {name}" in output
    directory = only_run(tmp_path / "runs")
    assert read_summary(directory)["status"] == "stopped"
    assert len(checkpoints.found(directory / "checkpoints")) == 1


@pytest.mark.parametrize(
    ("finished", "shard", "at", "what"),
    [
        (False, "tiny_train_000001.bin", None, "the first batches"),  # other windows
        (True, "tiny_train_000001.bin", -2, "all shards"),  # the last token, in no window
        (False, "tiny_val_000000.bin", 1024, "the val text"),
        (True, "tiny_val_000000.bin", -2, "all shards"),  # beyond what is evaluated
    ],
)
def test_changed_data_are_refused_before_anything_is_compiled(
    tiny, shards, tmp_path, monkeypatch, capsys, finished, shard, at, what
):
    """Also where the run has finished: it was another run."""
    folder = tmp_path / "data"
    shutil.copytree(shards, folder)
    arguments = [*tiny, "--data.dir", str(folder)]
    assert (main(arguments) if finished else interrupted(arguments, at=6)) == 0
    if at is None:
        (folder / shard).unlink()
    else:
        content = bytearray((folder / shard).read_bytes())
        content[at] ^= 1
        (folder / shard).write_bytes(content)
    record = (only_run(tmp_path / "runs") / "record.json").read_bytes()
    monkeypatch.setattr(train_gpt2, "build", lambda *_: pytest.fail("built a model"))
    capsys.readouterr()
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "error: the data in data.dir are not those that the run in" in line
    assert f"the hash of {what} is" in line
    assert (only_run(tmp_path / "runs") / "record.json").read_bytes() == record


def test_a_run_resumes_on_a_smaller_gpu_and_from_another_mount(tiny, shards, tmp_path):
    assert interrupted(tiny, at=6) == 0
    shutil.copytree(shards, tmp_path / "mount")
    moved = ["--data.dir", str(tmp_path / "mount"), "--train.micro_batch_size", "2"]
    assert main([*tiny, *moved]) == 0
    directory = only_run(tmp_path / "runs")
    assert [x["step"] for x in read_metrics(directory) if "train/loss" in x] == list(range(12))
    assert f'dir = "{tmp_path / "mount"}"' in (directory / "config.toml").read_text()


@pytest.mark.parametrize("what", ["device", "dtype"])
def test_other_hardware_is_refused_on_resume_unless_it_is_accepted(tiny, tmp_path, capsys, what):
    assert interrupted(tiny, at=6) == 0
    directory = only_run(tmp_path / "runs")
    path = directory / "record.json"
    old = "H100" if what == "device" else "bfloat16"
    record = json.loads(path.read_text())
    record["launches"][-1]["environment"][what] = old
    path.write_text(json.dumps(record))
    new = "cpu" if what == "device" else "float32"
    capsys.readouterr()
    assert main(tiny) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"this run would go on with {what} {old} to {new} changed" in line
    assert "--launch.accept_other_hardware true" in line
    assert main([*tiny, "--launch.accept_other_hardware", "true"]) == 0
    said = f"warning: the run goes on, as accepted, from {what} {old} to {new}\n"
    assert capsys.readouterr().out.count(said) == 1
    environments = [launch["environment"] for launch in read_record(directory)["launches"]]
    assert [environment[what] for environment in environments] == [old, new]


def test_a_folder_of_an_earlier_version_is_named(tiny, tmp_path, capsys):
    config = optim.resolve(load(tiny))
    (tmp_path / "runs" / config.former_name).mkdir(parents=True)
    assert main(tiny) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "earlier version" in x]
    assert line.startswith(f"{tmp_path / 'runs' / config.former_name} is this run by an earlier")
    assert config.directory.exists()


def test_what_the_user_can_mend_is_said_before_minutes_of_compilation(tiny, monkeypatch, capsys):
    def conflicts(*_):
        return "this schedule works against the method"

    said = []
    monkeypatch.setattr("optim.schedule_conflict", conflicts)
    monkeypatch.setattr(
        train_gpt2, "warm_up", lambda *_: said.append(capsys.readouterr().out) or 0.0
    )
    assert main(tiny) == 0
    assert "warning: this schedule works against the method\n" in said[0]


def test_killing_the_agent_leaves_no_orphan_and_loses_nothing(shards, tmp_path):
    length = ["--train.total_steps", "4000", "--eval.every", "4000", "--checkpoint.every", "0"]
    process = job(command(shards, tmp_path / "runs") + length, nproc=2)
    wait_until(lambda: steps_logged(tmp_path / "runs") > 3)
    workers = children(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 30)
    assert len(checkpoints.found(only_run(tmp_path / "runs") / "checkpoints")) == 1


def test_torn_checkpoint_is_named_and_the_one_before_it_used(tiny, tmp_path, capsys):
    main([*tiny, "--log.dir", str(tmp_path / "calm")])
    assert interrupted(tiny, at=10) == 0
    directory = only_run(tmp_path / "runs")
    newest, before = checkpoints.found(directory / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:-100])
    assert main(tiny) == 0
    out, err = capsys.readouterr()
    assert f"{newest.with_suffix('.torn')} is torn" in err
    assert f"from step {checkpoints.step_of(before)}" in out
    assert_same(result(tmp_path / "calm"), result(tmp_path / "runs"))


def test_flipped_bit_in_a_checkpoint_is_found(tiny, capsys, tmp_path):
    interrupted(tiny, at=10)
    directory = only_run(tmp_path / "runs")
    newest = checkpoints.found(directory / "checkpoints")[0]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert main(tiny) == 0
    assert f"{newest.stem}.torn is torn or corrupt" in capsys.readouterr().err


def test_when_no_checkpoint_is_whole_it_stops_and_says_how_to_go_on(tiny, capsys, tmp_path):
    interrupted(tiny, at=10)
    for path in checkpoints.found(only_run(tmp_path / "runs") / "checkpoints"):
        path.write_bytes(b"")
    assert main(tiny) == 2
    assert "is whole; remove" in capsys.readouterr().err.splitlines()[-1]


def test_checkpoint_of_another_configuration_is_refused(tiny, tmp_path, capsys):
    interrupted(tiny, at=10)
    (other,) = checkpoints.found(only_run(tmp_path / "runs") / "checkpoints")[:1]
    interrupted([*tiny, "--seed", "2"], at=6)
    directory = next(d for d in (tmp_path / "runs").iterdir() if "-s2-" in d.name)
    for path in checkpoints.found(directory / "checkpoints"):
        path.unlink()
    other.rename(directory / "checkpoints" / other.name)
    capsys.readouterr()
    assert main([*tiny, "--seed", "2"]) == 2
    assert "is of run adamw-cosine-s1-" in capsys.readouterr().err


def test_finished_run_says_so_and_trains_nothing(tiny, tmp_path, capsys):
    assert main(tiny) == 0
    before = (only_run(tmp_path / "runs") / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert main(tiny) == 0
    assert "has finished already" in capsys.readouterr().out
    assert (only_run(tmp_path / "runs") / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("world_size", [1, pytest.param(4, marks=SLOW)])
def test_interrupted_on_two_ranks_it_goes_on_with_another_number(shards, tmp_path, world_size):
    """The same tokens: the loss stays that of a run on one rank for 20 more steps."""
    length = ["--train.total_steps", "60", "--checkpoint.every", "0"]
    calm, runs = tmp_path / "calm", tmp_path / "runs"
    main(command(shards, calm) + length)
    arguments = command(shards, runs) + length
    both = ranks(arguments, 2)
    wait_until(lambda: steps_logged(runs) > 6)
    for rank in both:
        rank.send_signal(signal.SIGTERM)
    for rank in both:
        finish(rank)
    at = read_summary(only_run(runs))["steps"]
    assert at <= 40, "20 more steps are to follow"
    for rank in ranks(arguments, world_size):
        finish(rank)
    a, b = (
        [x["train/loss"] for x in read_metrics(only_run(folder)) if "train/loss" in x]
        for folder in (calm, runs)
    )
    assert len(a) == len(b) == 60
    assert a == pytest.approx(b, abs=1e-4)
    launches = read_record(only_run(runs))["launches"]
    assert [launch["environment"]["world_size"] for launch in launches] == [2, world_size]


def interrupted(arguments, at):
    """Run in this process, which gets SIGTERM after update `at`; returns the exit code."""
    log = RunLog.log

    def stop(self, step, values, *inside):
        log(self, step, values, *inside)
        if step == at - 1 and "train/loss" in values:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "log", stop)
        return main(arguments)


@pytest.mark.parametrize("git", [None, {"commit": "b" * 40, "dirty": False}])
def test_other_code_at_a_resume_is_said_and_trains_on(tiny, monkeypatch, capsys, git):
    monkeypatch.setattr(hardware, "git_state", lambda _: git and git | {"commit": "a" * 40})
    monkeypatch.setattr(hardware, "code_hash", lambda: "0" * 8)
    assert interrupted(tiny, at=3) == 0
    assert interrupted(tiny, at=5) == 0
    monkeypatch.setattr(hardware, "git_state", lambda _: git)
    monkeypatch.setattr(hardware, "code_hash", lambda: "1" * 8)
    assert "the code has changed" not in capsys.readouterr().out
    assert main(tiny) == 0
    versions = "commit aaaaaaaa to commit bbbbbbbb" if git else "files 00000000 to files 11111111"
    line = f"the code has changed from {versions} since step 6; training goes on\n"
    assert capsys.readouterr().out.count(line) == 1
