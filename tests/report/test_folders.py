"""One run's folder: its numbers, and everything that can be wrong with it."""

import json
import math
import shutil

import pytest

from record.runlog import lock
from record.sharpness import add
from report.folders import Place, read_run
from report.judgement import judge
from report.sources import read
from tests.report.contest_folder import configuration, curve, folder_of, one, write_run
from tests.report.test_sharpness import measured


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


def line_with_a_damaged_table(folder):
    path = folder / "metrics.jsonl"
    path.write_bytes(b'{"step": 0, "nonfinite": [1]}\n' + path.read_bytes())


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
        (line_with_a_damaged_table, "metrics.jsonl: line 1 damaged"),
        (missing_evaluation, "evaluations missing: 1, at step 10"),
        (other_summary, "summary.json has final val loss 0.1, metrics.jsonl"),
        (lambda f: (f / "record.json").unlink(), "no record.json"),
        (lambda f: (f / "record.json").write_text("{"), "record.json is damaged"),
        (lambda f: (f / "record.json").write_text("[1]"), "record.json is damaged"),
        (lambda f: (f / "config.toml").unlink(), "no config.toml"),
        (lambda f: (f / "config.toml").write_text("= 3"), "config.toml is damaged"),
        (lambda f: (f / "summary.json").write_text("{"), "summary.json is damaged"),
        (lambda f: (f / "summary.json").unlink(), "ended without a summary"),
        (lambda f: (f / "metrics.jsonl").unlink(), "no metrics.jsonl"),
        (lambda f: shutil.rmtree(f), "planned, but not started"),
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


def test_a_run_that_came_back_from_a_spike_counts_with_a_caution(tmp_path):
    """Also where the summary is of an earlier version, which called it diverged."""
    config, losses = configuration("wsd", 1, steps=1200, every=600), curve(1, 1200, 0.0)
    losses[300:450] += 6
    summary = write_run(tmp_path / "r", config, losses)
    path = tmp_path / "r" / "summary.json"
    old = json.loads(path.read_text()) | {"diverged": True, "diverged_reason": "loss climbed"}
    del old["climb_updates"]
    path.write_text(json.dumps(old))
    study = read([str(tmp_path)])
    assert not study.runs[0].diverged
    assert study.runs[0].summary["climb_updates"] == summary["climb_updates"]
    (said,) = judge(study).problems
    assert f"its loss climbed for {summary['climb_updates']} updates and came back" in said


def test_sharpness_is_read_from_the_runs_folder_and_a_damaged_file_is_a_problem(tmp_path):
    config = configuration("wsd", 1)
    write_run(tmp_path / "run", config, curve(1, 40, 0.1))
    add(tmp_path / "run", [measured(40)])
    assert [x.step for x in read_run(Place(tmp_path / "run")).sharpness] == [40]
    (tmp_path / "run" / "sharpness.json").write_text("[{}]")
    run = read_run(Place(tmp_path / "run"))
    assert run.sharpness == ()
    assert any("sharpness.json is damaged" in problem for problem in run.problems)
