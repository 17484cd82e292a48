"""From paths to a study: contests, loose runs, and folders that are neither."""

import json

import numpy as np
import pytest

from record.metrics import summarize
from record.runlog import read_metrics
from report.run import ReportError
from report.sources import read
from tests.jobs import command, finish, job
from tests.report.contest_folder import (
    configuration,
    curve,
    folder_of,
    one,
    write_contest,
    write_run,
)


def test_contest_folder_gives_arms_roles_baseline_and_columns(tmp_path):
    home = write_contest(tmp_path / "demo", {"cosine": 0.0, "wsd": 0.02}, seeds=(1, 2), steps=20,
                         tuning=True)  # fmt: skip
    study = read([str(home)])
    assert (study.name, study.baseline, study.arms) == ("demo", "cosine", ["cosine", "wsd"])
    assert len(study.of("wsd")) == 2
    assert len(study.of("wsd", "tuning")) == 3
    assert study.tuning.arms["wsd"].best == {"optimizer.lr": 1e-3}
    assert study.problems == []
    run = one(study)
    records = read_metrics(folder_of(home, "wsd", 1))
    losses = [r["train/loss"] for r in records if "train/loss" in r]
    assert run.train["train/loss"].tolist() == losses
    assert run.val["step"].tolist() == [0, 10, 20]
    assert np.isnan(run.train["mfu"]).all()
    assert run.problems == ()
    assert run.status == "finished"
    assert run.summary["final_val_loss"] == run.val["val/loss"][-1]


def test_loose_runs_are_arms_by_their_job_type(home):
    (home / "plan.json").unlink()
    study = read([str(home)])
    assert (study.baseline, study.arms) == ("cosine", ["cosine", "wsd"])
    assert {run.contest for run in study.runs} == {"demo"}


def test_runs_without_job_type_are_named_after_their_optimizer(tmp_path):
    config = configuration("wsd", 3, steps=20)
    del config["log"]["job_type"]
    config["optimizer"]["name"] = "my_lab.Thing"
    write_run(tmp_path / "x", config, curve(3, 20, 0.0))
    assert read([str(tmp_path)]).arms == ["Thing"]


def test_baseline_is_an_arm_or_a_run_of_it(home):
    (home / "plan.json").unlink()
    (folder,) = home.glob("adamw-wsd-s2-*")
    for word in ("wsd", folder.name, str(folder), f"{folder}/"):
        study = read([str(home)], word)
        assert study.baseline == "wsd"
        assert not any("no baseline was named" in problem for problem in study.problems)


def test_real_runs_of_the_trainer(shards, tmp_path):
    """Two arms by the trainer itself: equal hashes, complete columns, summary as recorded."""
    for schedule in ("cosine", "wsd"):
        arguments = [*command(shards, tmp_path / "runs"), "--schedule.name", schedule]
        finish(job(arguments))
    study = read([str(tmp_path / "runs")])
    a, b = study.runs
    assert study.arms == ["adamw-cosine", "adamw-wsd"]
    assert a.hashes == b.hashes
    assert a.hashes.keys() >= {"weights", "batches"}
    assert a.problems == b.problems == ()
    assert a.train["step"].tolist() == list(range(12))
    assert a.val["step"].tolist() == [0, 5, 10, 12]
    recomputed = summarize(read_metrics(tmp_path / "runs" / a.name), 12)
    assert {name: a.summary[name] for name in recomputed} == recomputed


def test_missing_and_empty_and_foreign_folders_are_one_line(tmp_path):
    with pytest.raises(ReportError, match="does not exist; give a folder of runs"):
        read([str(tmp_path / "nowhere")])
    (tmp_path / "file").write_text("x")
    with pytest.raises(ReportError, match="is a file"):
        read([str(tmp_path / "file")])
    with pytest.raises(ReportError, match="holds no run"):
        read([str(tmp_path)])


def test_foreign_folder_beside_runs_is_named(home):
    (home / "notes").mkdir()
    (home / "notes" / "todo.txt").write_text("x")
    assert any("no run in notes" in problem for problem in read([str(home)]).problems)


def test_damaged_plan_is_named_and_the_runs_are_read(home):
    (home / "plan.json").write_text("{")
    study = read([str(home)])
    assert len(study.runs) == 4
    assert any("plan.json is damaged" in problem for problem in study.problems)


def of_another_version(home, name):
    """Take a key out of plan.json or tuning.json."""
    table = json.loads((home / name).read_text())
    del table["contest"]
    (home / name).write_text(json.dumps(table))


@pytest.mark.parametrize("name", ["plan.json", "tuning.json"])
def test_contest_file_that_does_not_fit_its_schema_is_one_line(tmp_path, name):
    home = write_contest(tmp_path / "demo", {"cosine": 0.0}, seeds=(1,), steps=20, tuning=True)
    of_another_version(home, name)
    with pytest.raises(ReportError) as caught:
        read([str(home)])
    line = str(caught.value)
    assert line.startswith(f"{home / name} is damaged (contest: Field required)")
    assert "`python -m contest` writes it again" in line
    assert "\n" not in line
