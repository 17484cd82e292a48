"""A contest as job arrays on a real SLURM: the same runs and results as on one machine."""

import json
import os
import signal

import pytest

from contest import slurm
from contest.__main__ import main
from record.runlog import read_metrics, read_record, read_summary
from tests.contest import tiny
from tests.jobs import metrics, wait_until


def write_contest(tmp_path, shards, arms, **keys):
    """The contest that `submit` submits."""
    tiny.write(tmp_path / "small.toml", shards, arms, name="small", **keys)


def wait_for_empty_queue(home):
    wait_until(lambda: not slurm.queue(home), 240, lambda: str(slurm.queue(home)), pause=0.1)


@pytest.fixture
def submit(cluster, tmp_path, monkeypatch, capsys):
    """`python -m contest small.toml --executor slurm` as a function of more flags: code, output."""
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])

    def call(*flags):
        words = ["--executor", "slurm", "--gpus-per-run", "0", "--out", str(tmp_path / "cluster")]
        code = main([str(tmp_path / "small.toml"), *words, *flags])
        return code, capsys.readouterr().out

    return call


def assert_same_as_local(tmp_path):
    """Runs the contest again on this machine, and compares plans and numbers."""
    code, said = tiny.contest(tmp_path / "small.toml", tmp_path / "local", "--gpus-per-run", "0")
    assert code == 0, said
    plans = [json.loads((tmp_path / out / "small/plan.json").read_text())["runs"]
             for out in ("cluster", "local")]  # fmt: skip
    assert plans[0] == plans[1]
    for run in plans[0]:
        there, here = (tmp_path / out / "small" / run["directory"] for out in ("cluster", "local"))
        assert metrics(there) == metrics(here)
        assert metrics(there)[-1]["val/loss"] == read_summary(here)["final_val_loss"]


def test_contest_survives_its_tasks_and_is_the_same_as_on_one_machine(
    cluster, submit, shards, tmp_path
):
    write_contest(
        tmp_path,
        shards,
        {"adamw": {}, "lion": {"optimizer.name": "lion"}},
        settings={"train.total_steps": 80, "checkpoint.every": 10},
    )
    home = tmp_path / "cluster/small"
    code, said = submit()
    assert code == 1
    assert "submitted 4 runs as job array" in said
    array = said.partition("job array ")[2].split()[0]
    runs = json.loads((home / "plan.json").read_text())["runs"]
    killed, _, failing, good = (home / run["directory"] for run in runs)
    failing.mkdir()
    (failing / "checkpoints").touch()  # no folder: an error of its own
    assert "submitted" not in submit()[1]  # all are on their way
    wait_until(lambda: len(read_metrics(killed)) > 12, 240)
    os.kill(read_record(killed)["launches"][0]["pid"], signal.SIGKILL)
    cluster.run("scancel", f"{array}_1")
    wait_for_empty_queue(home)
    code, said = submit("--status")
    assert "1 of 4 runs done, 1 failed" in said
    assert read_summary(good)["status"] == "finished"

    code, said = submit()
    assert "submitted 2 runs" in said  # the killed and the cancelled one, not what failed
    (failing / "checkpoints").unlink()
    assert "submitted 1 runs" in submit("--retry-failed")[1]
    wait_for_empty_queue(home)
    code, said = submit()
    assert (code, "submitted" in said, "4 of 4 runs done" in said) == (0, False, True)
    assert len(read_record(killed)["launches"]) == 2
    attempts = [json.loads(x) for x in (home / "attempts.jsonl").read_text().splitlines()]
    codes = {x["id"]: [y["exit_code"] for y in attempts if y["id"] == x["id"]] for x in attempts}
    assert codes[killed.name] == [-9, 0]
    assert codes[failing.name] == [2, 0]
    assert codes[good.name] == [0]
    assert_same_as_local(tmp_path)


@pytest.mark.slow
def test_what_waits_for_tuning_and_for_a_trunk_is_submitted_by_the_same_command(
    submit, shards, tmp_path
):
    write_contest(
        tmp_path,
        shards,
        {"wsd": {"schedule.name": "wsd", "schedule.warmup_steps": 2}},
        seeds=[1],
        tuning_seeds=[101],
        tune={"optimizer.lr": [1e-3, 3e-3]},
        branches={"arms": ["wsd"], "lengths": [12]},
    )
    home = tmp_path / "cluster/small"
    submitted = []
    while len(submitted) < 4:
        code, said = submit()
        submitted += [int(line.split()[1]) for line in said.splitlines() if "submitted" in line]
        assert code == 1
        wait_for_empty_queue(home)
    assert submitted == [2, 1, 1, 1]  # two trials, one beyond the edge, the trunk, the branch
    assert submit()[0] == 0
    assert_same_as_local(tmp_path)


def test_sbatch_refuses_in_its_own_words(submit, shards, tmp_path, capsys):
    write_contest(tmp_path, shards, {"adamw": {}}, seeds=[1])
    home = tmp_path / "cluster/small"
    assert submit("--partition", "nowhere")[0] == 2
    assert submit("--gpus-per-run", "1")[0] == 2
    assert not list((home / "slurm").iterdir())
    assert submit("--nodes", "2", "--gpus-per-run", "3")[0] == 2
