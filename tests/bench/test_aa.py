"""Contests of an arm against itself, small enough for every test run."""

import csv

import pytest

from bench import aa
from report import verdict
from tests.jobs import ROOT

TINY = {
    "model.vocab_size": 256,
    "model.block_size": 16,
    "model.n_embd": 16,
    "train.batch_tokens": 256,
    "train.total_steps": 4,
    "eval.every": 4,
    "eval.tokens": 512,
}


def test_three_contests_are_run_judged_and_not_run_again(shards, tmp_path, monkeypatch):
    flags = [word for key, value in TINY.items() for word in (f"--{key}", str(value))]
    flags += ["--data.dir", str(shards)]
    path = tmp_path / "losses.csv"
    aa.run(path, 1, flags)
    path.write_text(path.read_text() + "2,4,3.1")  # cut off by a kill
    aa.run(path, 3, flags)
    rows = list(csv.DictReader(path.open()))
    assert [(row["contest"], row["seed"]) for row in rows] == [
        (str(1 + i // 3), str(1 + i)) for i in range(9)
    ]
    assert all(float(row["a"]) == pytest.approx(float(row["b"]), abs=1e-3) for row in rows)
    assert any(row["a"] != row["b"] for row in rows)  # other bits
    found = aa.judged(path)
    assert [len(c.differences) for c in found] == [3, 3, 3]
    assert {c.call for c in found} <= {"equivalent", "undecided"}
    assert aa.document(found).startswith("3 contests of 2 arms x 3 seeds, 18 runs: ")
    monkeypatch.setattr(aa, "final_loss", None)  # nothing is missing
    aa.run(path, 3, flags)


def test_calls_are_counted_with_their_binomial_bound():
    calls = ["better"] * 3 + ["undecided"] * 17
    text = aa.document([verdict.Comparison("a", c, differences={(1, 1): 0.1}) for c in calls])
    assert "better or worse: 3 of 20, 15.0 % (95 % Clopper-Pearson 3.2 to 37.9 %)" in text
    assert "above 5 %: p = 0.075." in text  # 1 - binomial(20, 0.05) below 3


def test_quote_in_the_documentation_is_what_the_program_prints(monkeypatch):
    monkeypatch.setattr(verdict, "bca", lambda _: None)  # decides nothing, and takes its time
    results = ROOT / "docs" / "results"
    said = aa.document(aa.judged(results / "paired_aa.csv"))
    assert " ".join(said.split()) in (results / "calibration.md").read_text()
