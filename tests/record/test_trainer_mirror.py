"""The trainer's own run in W&B: read back whole, and not held up by a server that dies."""

import os
import shutil
import subprocess
import sys

import pytest

from record.runlog import read_metrics, read_record, read_summary
from tests.jobs import ROOT, command, finish, job, only_run, ranks
from tests.record.test_wandb_mirror import history, inspect, online


def test_wandb_file_of_a_two_rank_run_holds_every_metric(shards, tmp_path, monkeypatch):
    """Also with a relative log.dir, as users have it."""
    relative = os.path.relpath(tmp_path / "runs", ROOT)
    flags = ["--log.dir", relative, "--log.wandb", "auto", "--log.group", "contest"]
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    output = "".join(map(finish, ranks([*command(shards, tmp_path), *flags], 2)))
    assert output.count("W&B: offline") == 1
    directory = only_run(tmp_path / "runs")
    merged = {}
    for line in read_metrics(directory):
        values = {k: v for k, v in line.items() if k != "step" and v is not None}
        merged.setdefault(line["step"], {}).update(values)
    assert history(directory) == merged
    assert set(merged) == set(range(13))
    (begun,) = [r["run"] for r in inspect(directory) if r["type"] == "run"]
    assert begun["run_group"] == "contest"
    assert begun["config"]["update"]["optimizer"]["name"] == "adamw"


@pytest.mark.slow
def test_training_goes_on_when_wandb_becomes_unreachable(shards, tmp_path, wandb_server):
    script = (
        "import sys, train_gpt2\n"
        "from record import wandb_mirror\n"
        "wandb_mirror.FINISH_SECONDS = 3.0\n"  # instead of twenty
        "sys.exit(train_gpt2.main(sys.argv[1:]))\n"
    )
    flags = ["--log.wandb", "online", "--train.total_steps", "150", "--eval.every", "150"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    process = subprocess.Popen(
        [sys.executable, "-c", script, *command(shards, tmp_path / "runs"), *flags],
        cwd=ROOT,
        env=clean | online(wandb_server) | {"HOME": str(tmp_path)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert wandb_server.created.wait(60)
    wandb_server.stop()
    output = finish(process)
    directory = only_run(tmp_path / "runs")
    assert read_summary(directory)["status"] == "finished"
    steps = [x["step"] for x in read_metrics(directory) if "train/loss" in x]
    assert steps == list(range(150))
    assert "wandb sync" in output
    assert set(history(directory)) == set(range(151))  # kept for later
    assert read_record(directory)["wandb"]["mode"] == "online"


@pytest.mark.slow
def test_resumed_run_keeps_its_wandb_id(shards, tmp_path):
    base = [*command(shards, tmp_path / "runs"), "--log.wandb", "offline"]
    finish(job(base))
    directory = only_run(tmp_path / "runs")
    first = read_record(directory)["wandb"]["id"]
    (directory / "summary.json").unlink()  # as if killed before it was written
    finish(job(base))
    assert read_record(directory)["wandb"]["id"] == first
    shutil.rmtree(directory)
    finish(job(base))
    assert read_record(directory)["wandb"]["id"] != first
