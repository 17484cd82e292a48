"""Where the numbers come from, and the commands that give them again."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from report.provenance import plan_history, provenance
from report.sources import read
from tests.jobs import command
from tests.report.contest_folder import configuration, curve, write_run
from tests.report.studies import BASE, a_study, changed
from train_gpt2 import main


def test_command_of_an_arm_names_a_configuration_that_is_there(tmp_path):
    folder = tmp_path / "my runs" / "a"
    write_run(folder, configuration("a", 1, steps=20), curve(1, 20, 0.0))
    section = provenance(read([str(folder.parent)]), "python -m report 'my runs'")
    report, line = section.lines
    assert report == "this report: python -m report 'my runs'"
    python, script, config, *_ = shlex.split(line.partition(" again: ")[2])
    assert (python, script) == ("python", "train_gpt2.py")
    assert Path(config).samefile(folder / "config.toml")


def test_the_command_of_a_finished_run_trains_once_more_to_the_same_loss(
    shards, tmp_path, monkeypatch
):
    assert main([*command(shards, tmp_path / "runs"), "--train.total_steps", "3"]) == 0
    monkeypatch.chdir(tmp_path)
    study = read(["runs"])
    line = provenance(study, "x").lines[1]
    _, _, *words = shlex.split(line.partition(" again: ")[2])
    assert main(words) == 0
    (again,) = read(["runs/again"]).runs
    assert again.train["step"].tolist() == [0, 1, 2]
    assert again.final_loss == study.runs[0].final_loss
    assert again.source != study.runs[0].source


def test_runs_read_from_wandb_have_no_command():
    study = a_study({"base": BASE, "other": {1: 3.0}})
    study = changed(study, "base", 1, source="wandb:lab/bench/id1")
    study = changed(study, "base", 2, source="runs/base-2")
    study = changed(study, "other", 1, source="wandb:lab/bench/id2")
    section = provenance(study, "x")
    assert section.lines == [
        "this report: x",
        "base again: python train_gpt2.py runs/base-2/config.toml --log.dir runs/again",
    ]


def test_facts_that_differ_are_counted():
    study = a_study({"base": BASE})
    git = {"commit": "0123456789abcdef", "dirty": True}
    for seed, device in ((1, "H100"), (2, "H100"), (3, "cpu")):
        environment = {"device": device, "versions": {"torch": "2.13.0"}, "git": git}
        facts = {"launches": [{"environment": environment}]}
        study = changed(study, "base", seed, facts=facts)
    config = study.runs[0].config | {"train": {"total_steps": 5}}
    study = replace(study, runs=[replace(study.runs[0], config=config), *study.runs[1:]])
    (table,) = provenance(study, "x").tables
    rows = dict(table.rows)
    assert rows["device"] == "H100 (2); cpu (1)"
    assert rows["torch"] == "2.13.0"
    assert rows["commit"] == "0123456789ab with changes"
    assert rows["[train]"].startswith('{"total_steps": 5} (1); {')
    assert "host" not in rows


def test_looking_after_every_seed_calls_as_many_equal_arms_different_as_the_report_says():
    x = np.random.default_rng(0).standard_normal((20_000, 10))
    p = [stats.ttest_1samp(x[:, :seeds], 0, axis=1).pvalue for seeds in range(3, 11)]
    share = (np.min(p, axis=0) < 0.05).mean()
    said = plan_history(a_study({"base": BASE}, history=["a line"])).text
    assert f"from the third to the tenth calls {100 * share:.0f} % of equal arms" in said
