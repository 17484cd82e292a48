"""What the report reads from folders: contests, loose runs, and everything that can be wrong."""

import json
import math
import shutil

import numpy as np
import pytest

from record.metrics import summarize
from record.runlog import lock, read_metrics
from report.run import ReportError
from report.sources import read
from tests.jobs import command, finish, job
from tests.report.contest_folder import configuration, curve, write_contest, write_run


@pytest.fixture
def home(tmp_path):
    return write_contest(tmp_path / "demo", {"cosine": 0.0, "wsd": 0.02}, seeds=(1, 2), steps=20)


def folder_of(home, arm, seed):
    return next(home.glob(f"adamw-{arm}-s{seed}-*"))


def one(study, arm="wsd", seed=1):
    (run,) = (run for run in study.of(arm) if run.seed == seed)
    return run


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
    assert (study.baseline, study.arms) == (None, ["cosine", "wsd"])
    assert {run.contest for run in study.runs} == {"demo"}


def test_runs_without_job_type_are_named_after_optimizer_and_schedule(tmp_path):
    config = configuration("wsd", 3, steps=20)
    del config["log"]["job_type"]
    config["optimizer"]["name"] = "my_lab.Thing"
    write_run(tmp_path / "x", config, curve(3, 20, 0.0))
    assert read([str(tmp_path)]).arms == ["Thing-wsd"]


def test_real_runs_of_the_trainer(shards, tmp_path):
    """Two arms by the trainer itself: equal hashes, complete columns, summary as recorded."""
    for schedule in ("cosine", "wsd"):
        arguments = [*command(shards, tmp_path / "runs"), "--schedule.name", schedule]
        finish(job(arguments))
    study = read([str(tmp_path / "runs")])
    a, b = study.runs
    assert study.arms == ["adamw-cosine", "adamw-wsd"]
    assert a.hashes == b.hashes
    assert a.hashes.keys() == {"weights", "batches"}
    assert a.problems == b.problems == ()
    assert a.train["step"].tolist() == list(range(12))
    assert a.val["step"].tolist() == [0, 5, 10, 12]
    recomputed = summarize(read_metrics(tmp_path / "runs" / a.name), 12)
    assert {name: a.summary[name] for name in recomputed} == recomputed


# ------------------------------------------------------------------------------------- bad input


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


def cut_line(folder):
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-25])


def damaged_line(folder):
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[4] = b'{"step": 3, "train/lo\xff'
    path.write_bytes(b"\n".join(lines))


def line_that_is_no_object(folder):
    path = folder / "metrics.jsonl"
    path.write_bytes(b"17\n" + path.read_bytes())


def missing_evaluation(folder):
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(x for x in lines if b'"step": 10, "val/loss"' not in x))


def other_summary(folder):
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"final_val_loss": 0.1}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_line, "its last line is cut"),
        (damaged_line, "metrics.jsonl: line 5 damaged and left out"),
        (line_that_is_no_object, "metrics.jsonl: line 1 damaged"),
        (missing_evaluation, "1 evaluations are missing, at step 10"),
        (other_summary, "summary.json has final val loss 0.1, metrics.jsonl"),
        (lambda f: (f / "record.json").unlink(), "no record.json"),
        (lambda f: (f / "record.json").write_text("{"), "record.json is damaged"),
        (lambda f: (f / "record.json").write_text("[1]"), "record.json is damaged"),
        (lambda f: (f / "config.toml").unlink(), "no config.toml"),
        (lambda f: (f / "config.toml").write_text("= 3"), "config.toml is damaged"),
        (lambda f: (f / "summary.json").write_text("{"), "summary.json is damaged"),
        (lambda f: (f / "summary.json").unlink(), "ended without a summary"),
        (lambda f: (f / "metrics.jsonl").unlink(), "no metrics.jsonl"),
        (lambda f: shutil.rmtree(f), "planned, and not begun"),
    ],
)
def test_damage_is_named_and_the_run_stays(home, damage, words):
    damage(folder_of(home, "wsd", 1))
    run = one(read([str(home)]))
    assert any(words in problem for problem in run.problems), run.problems


def test_contradicting_summary_does_not_count(home):
    folder = folder_of(home, "wsd", 1)
    true = json.loads((folder / "summary.json").read_text())["final_val_loss"]
    other_summary(folder)
    assert one(read([str(home)])).summary["final_val_loss"] == true


def test_run_that_is_still_going(tmp_path):
    config = configuration("wsd", 1, steps=20)
    write_run(tmp_path / "r", config, curve(1, 20, 0.0), status="killed", upto=15)
    assert read([str(tmp_path)]).runs[0].status == "stopped"
    with lock(tmp_path / "r", 0):
        run = read([str(tmp_path)]).runs[0]
        assert (run.status, run.summary["final_val_loss"]) == ("running", None)
        assert len(run.train["step"]) == 15
    with lock(tmp_path / "r", 0):
        pass  # reading left the lock as it was


def test_failed_run_gives_its_error(tmp_path):
    config = configuration("wsd", 1, steps=20)
    write_run(tmp_path / "r", config, curve(1, 20, 0.0), status="killed", upto=5)
    path = tmp_path / "r" / "record.json"
    record = json.loads(path.read_text())
    record["launches"][-1] |= {"status": "failed", "error": "OSError('disk full')"}
    path.write_text(json.dumps(record))
    run = read([str(tmp_path)]).runs[0]
    assert run.status == "failed"
    assert "failed: OSError('disk full')" in run.problems


def test_nonfinite_values_come_back(tmp_path):
    config = configuration("wsd", 1, steps=20)
    losses = curve(1, 20, 0.0)
    losses[12:] = math.inf
    write_run(tmp_path / "r", config, losses, upto=13, status="diverged")
    run = read([str(tmp_path)]).runs[0]
    assert run.diverged
    assert run.train["train/loss"][-1] == math.inf
    assert run.summary["diverged_reason"] == "non-finite"


def test_same_folder_twice_counts_once_and_a_copy_is_named(home, tmp_path):
    assert len(read([str(home), str(home)]).runs) == 4
    shutil.copytree(folder_of(home, "wsd", 1), home / "copy")
    study = read([str(home)])
    assert len(study.of("wsd")) == 2
    assert any("left out" in problem for problem in study.problems)


def test_two_contests_with_the_same_arms_are_told_apart(home, tmp_path):
    other = write_contest(tmp_path / "later", {"cosine": 0.0, "rex": 0.0}, seeds=(1, 2), steps=20)
    study = read([str(home), str(other)])
    assert study.arms == ["demo/cosine", "wsd", "later/cosine", "rex"]
    assert study.baseline is None
    assert read([str(tmp_path)]).arms == study.arms


def test_several_lengths_are_several_arms(tmp_path):
    for steps in (20, 40):
        for arm in ("cosine", "wsd"):
            config = configuration(arm, 1, steps=steps)
            write_run(tmp_path / f"{arm}{steps}", config, curve(1, steps, 0.0))
    study = read([str(tmp_path)])
    assert study.arms == ["cosine @ 20", "cosine @ 40", "wsd @ 20", "wsd @ 40"]
    assert [run.length for run in study.of("wsd @ 40")] == [40]


def test_damaged_plan_is_named_and_the_runs_are_read(home):
    (home / "plan.json").write_text("{")
    study = read([str(home)])
    assert len(study.runs) == 4
    assert any("plan.json is damaged" in problem for problem in study.problems)
