"""A published contest: its results.csv and the contest's own files say what its runs said."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from record.contest import Timing
from report.__main__ import main
from report.horizons import horizons
from report.judgement import judge
from report.results import read as results_read
from report.results import results
from report.run import ReportError
from report.sources import read
from tests.report.contest_folder import configuration, curve, folder_of, write_contest, write_run


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A contest with tuning, of whose 12 reporting runs one diverged and one was killed."""
    home = write_contest(
        tmp_path_factory.mktemp("runs") / "demo",
        {"cosine": 0.0, "wsd": 0.05, "linear": 0.0, "bad": 0.0},
        tuning=True,
        skip={("linear", 3), ("bad", 3)},
    )
    killed = home / "adamw-linear-s3-00000002"
    write_run(killed, configuration("linear", 3), curve(3, 40, 0.0), status="killed", upto=12)
    losses = curve(3, 40, 0.0)
    losses[20:] = np.nan
    run = folder_of(home, "bad", 2).with_name("diverged")
    write_run(run, configuration("bad", 3), losses, status="diverged", upto=21)
    plan = json.loads((home / "plan.json").read_text())
    entry = next(e for e in plan["runs"] if (e["arm"], e["seed"]) == ("bad", 3))
    entry["directory"] = entry["id"] = "diverged"
    plan |= {"against": {"linear": "wsd"}, "smallest": 0.003}
    (home / "plan.json").write_text(json.dumps(plan))
    out = tmp_path_factory.mktemp("docs") / "demo"
    assert main([str(home), "--out", str(out)]) == 0
    return home, out


def test_published_contest_has_the_verdicts_of_its_runs(pair):
    runs, kept = (judge(read([str(folder)])) for folder in pair)
    assert kept.headline == runs.headline
    assert kept.problems == runs.problems
    assert any("; the same command resumes it" in problem for problem in runs.problems)
    assert "Diverged: bad" in runs.headline
    assert "Provisional: 1 of 12 planned runs" in runs.headline
    for a, b in zip(runs.rows, kept.rows, strict=True):
        for field in ("arm", "values", "low", "ranks", "tuned", "to_target", "diverged"):
            if field == "to_target":  # of the training clock there is no record
                own = {k: v for k, v in a.to_target.items() if not k.startswith("seconds")}
                assert {k: b.to_target[k] for k in own} == own
            else:
                assert getattr(a, field) == getattr(b, field), (a.arm, field)
        assert b.costs["optimizer_state_bytes_per_parameter"].median == 8
        if a.comparison:
            mine, theirs = (replace(r.comparison, why_no_text="") for r in (a, b))
            assert mine == theirs
        assert b.speedups.get("tokens") == a.speedups.get("tokens")
        assert b.speedups.get("flops") == a.speedups.get("flops")
    assert kept.sensitivity == runs.sensitivity
    assert kept.planner == runs.planner
    assert kept.smallest == 0.003


def test_results_read_from_a_table_are_that_table(pair):
    _, out = pair
    assert results(read([str(out)])) == (out / "results.csv").read_text()


def test_published_plan_has_no_list_of_runs(pair):
    home, out = pair
    a, b = (json.loads((folder / "plan.json").read_text()) for folder in pair)
    assert len(a["runs"]) == 24
    assert b["runs"] == []
    assert b["against"] == {"linear": "wsd"}
    assert (home / "tuning.json").read_text() == (out / "tuning.json").read_text()


def test_published_timing_does_not_name_the_machine(tmp_path):
    home = write_contest(tmp_path / "runs" / "demo", {"cosine": 0.0, "wsd": 0.05})
    Timing(
        contest="demo", measured="2026-01-01T00:00:00+00:00", host="a-name-of-ours", place="1",
        updates=25, machine=(), arms={"wsd": {"step_ms": (10.0, 11.0), "setting": None}},
    ).write(home)  # fmt: skip
    assert main([str(home), "--out", str(tmp_path / "docs")]) == 0
    kept = Timing.read(tmp_path / "docs")
    assert (kept.host, kept.arms["wsd"].step_ms) == ("", (10.0, 11.0))
    for file in (tmp_path / "docs").iterdir():
        assert "a-name-of-ours" not in file.read_text(), file.name


def test_published_contest_is_not_written_over(pair, capsys):
    _, out = pair
    before = (out / "report.html").read_bytes()
    assert main([str(out)]) == 2
    assert "published contest; give --out DIR" in capsys.readouterr().err
    assert (out / "report.html").read_bytes() == before


def test_lengths_of_an_arm_survive(tmp_path):
    for steps in (20, 40, 80):
        for arm, gain in {"base": 0.0, "fast": 0.05}.items():
            for seed in (1, 2):
                config = configuration(arm, seed, steps=steps)
                losses = curve(seed, steps, gain) - steps / 200
                write_run(tmp_path / "runs" / f"{arm}{seed}-{steps}", config, losses)
    first = read([str(tmp_path / "runs")], "base")
    (tmp_path / "results.csv").write_text(results(first))
    again = read([str(tmp_path / "results.csv")], "base")
    assert again.arms == first.arms
    assert horizons(again) == horizons(first)
    assert horizons(again)["fast"].speedups


def test_small_table_by_hand_is_enough(tmp_path):
    """Arm, role, seed and a loss; the first arm is the baseline, as of loose runs."""
    lines = [f"{arm},report,{s},{2 + s * d}" for arm, d in (("a", 0), ("b", 0.1)) for s in (1, 2)]
    file = tmp_path / "losses.csv"
    file.write_text("\n".join(["arm,role,seed,final_val_loss", *lines, ""]))
    study = read([str(file)], "b")
    rows = {row.arm: row for row in judge(study).rows}
    assert rows["a"].comparison.difference == pytest.approx(-0.15)
    assert rows["a"].comparison.baseline == "b"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("arm,seed\na,1\n", "lacks role; give the results.csv"),
        ("arm,role,seed\n", "has no run"),
        ("arm,role,seed\na,report,x\n", "line 2: role 'report', status 'finished', seed 'x'"),
        ("arm,role,seed\na,judge,1\n", "line 2: role 'judge'"),
        ("arm,role,seed,status\na,report,1,well\n", "status 'well'"),
        ("arm,role,seed\n,report,1\n", "seed 1, arm None"),
        ("arm,role,seed\na,report,1,2\n", "line 2: it has not as many cells"),
        ("arm,role,seed,run\na,report,1\n", "line 2: it has not as many cells"),
        ("arm,role,seed,final_val_loss\na,report,1,low\n", "final_val_loss 'low' is no number"),
        ("arm,role,seed,train.total_steps\na,report,1,many\n", "'many' is no number"),
        ("arm,role,seed,val_curve\na,report,1,0:3 5\n", "val_curve '0:3 5'"),
        ("arm,role,seed,val_curve\na,report,1,0:x\n", "line 2: could not convert"),
    ],
)
def test_table_that_is_none_is_refused_in_one_line(tmp_path, table, words):
    file = tmp_path / "x.csv"
    file.write_text(table)
    with pytest.raises(ReportError, match=words) as error:
        read([str(file)])
    assert "\n" not in str(error.value)


def test_names_and_hashes_that_look_like_numbers_stay_text(tmp_path):
    """12e45678 is no infinity: runs with other batches would have one hash."""
    columns = ["arm", "role", "seed", "run", "weights_hash", "batches_hash"]
    file = io.StringIO()
    csv.writer(file).writerows([columns, ["1e-3", "report", 1, "007", "12e45678", "00123456"]])
    (tmp_path / "x.csv").write_text(file.getvalue())
    (run,) = results_read(tmp_path / "x.csv")
    assert (run.arm, run.name) == ("1e-3", "007")
    assert run.hashes == {"weights": "12e45678", "batches": "00123456"}


def test_a_table_given_by_its_own_path_is_published_with_its_plan(pair, tmp_path):
    _, out = pair
    assert main([str(out / "results.csv"), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "plan.json").read_text() == (out / "plan.json").read_text()


def test_cells_come_back_as_what_they_were(tmp_path):
    """Lists, booleans, infinity, and text that a spreadsheet would take for a formula."""
    columns = ["arm", "role", "seed", "final_val_loss", "optimizer.betas", "optimizer.nesterov"]
    file = io.StringIO()
    csv.writer(file).writerows([columns, ["'=x", "report", 1, "inf", [0.9, 0.95], True]])
    (tmp_path / "x.csv").write_text(file.getvalue())
    (run,) = read([str(tmp_path / "x.csv")]).runs
    assert run.arm == "=x"
    assert run.config["optimizer"] == {"betas": [0.9, 0.95], "nesterov": True}
    assert run.summary["final_val_loss"] == float("inf")
