"""Step times of arms, measured alone and in turn, by real processes."""

import json

import pytest

from configs import ConfigError
from contest import timing
from contest.plan import make
from contest.slots import slots
from record.contest import Timing
from report.sources import read
from tests.contest import tiny
from tests.jobs import ROOT


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_timing_leaves_a_file_that_the_report_uses_for_seconds(shards, tmp_path, monkeypatch):
    """The second arm's updates have four times the tokens; its schedule is longer than the runs."""
    monkeypatch.setattr(timing, "ROUNDS", 1)
    monkeypatch.setattr(timing, "UPDATES", 2)
    monkeypatch.setattr(timing, "WARM_UP", 1)
    monkeypatch.setattr(timing, "machine_now", lambda: {"other_runs": 0})  # of other tests
    arms = {"adamw": {"schedule.warmup_steps": 10}, "large": {"train.batch_tokens": 4096}}
    path = tiny.write(tmp_path / "c.toml", shards, arms)
    code, said = tiny.contest(path, tmp_path / "runs", "--timing")
    assert code == 0, said
    assert "round 1 of 1  large: " in said
    assert "large: " in said.splitlines()[-2]
    home = tmp_path / "runs/tiny"
    file = json.loads((home / "timing.json").read_text())
    assert (file["updates"], [*file["arms"]]) == (2, ["adamw", "large"])
    assert len(file["machine"]) == 2
    assert [entry.name for entry in home.iterdir() if entry.is_dir()] == [], "its runs are gone"
    found = Timing.read(home).arms
    assert all(x > 0 for arm in found.values() for x in arm.step_ms)

    plan = make(tiny.contests.read(path), tmp_path / "runs")
    plan.write()
    for job in plan.jobs:
        tiny.ended(job, 3.0)
    study = read([str(home)])
    assert study.step_ms == {name: arm.step_ms for name, arm in found.items()}


def test_every_round_begins_with_another_arm(shards, tmp_path, monkeypatch):
    order = []

    def step_ms(contest, arm, setting, slot):
        order.append(arm.name)
        return 10.0 + len(order)

    monkeypatch.setattr(timing, "_step_ms", step_ms)
    arms = {name: {"schedule.name": name} for name in ("cosine", "wsd", "linear")}
    plan = make(tiny.parse(shards, arms), tmp_path)
    said = []
    timed = timing.measure(plan, slots([], 2, jobs=1)[0], said.append)
    assert order[::3] == ["cosine", "wsd", "linear"]
    assert sorted(order) == sorted(3 * [*arms])
    assert timed.arms["wsd"].step_ms == (12.0, 14.0, 19.0)
    assert timed.place == "2 threads"
    assert len(said) == 9


def test_tuned_setting_is_timed_where_it_is_known(shards, tmp_path):
    tune = {"tuning_seeds": [101], "tune": {"optimizer.lr": [1e-3, 2e-3, 4e-3]}}
    contest = tiny.parse(shards, {"cosine": {}}, **tune)
    plan = make(contest, tmp_path)
    arm = contest.arms[0]
    assert timing._setting(plan, arm) is None
    tiny.ended(plan.jobs[0], 1.0)
    assert timing._setting(make(contest, tmp_path), arm) is None, "the best so far is not the best"
    for job in plan.jobs:
        tiny.ended(job, abs(job.trial["optimizer.lr"] - 2e-3))
    setting = timing._setting(make(contest, tmp_path), arm)
    assert setting == {"optimizer.lr": 2e-3}
    job = timing._job(contest, arm, setting, tmp_path, 1)
    assert job.config.optimizer.hyperparameters["lr"] == 2e-3
    assert job.config.train.total_steps == timing.WARM_UP + timing.UPDATES


def test_run_that_ends_without_its_updates_is_one_line(shards, tmp_path):
    contest = tiny.parse(shards, {"cosine": {"data.dir": "nowhere"}})
    slot = slots([], 1)[0]
    with pytest.raises(ConfigError, match=r"arm 'cosine': 0 of 30 updates were done; .*nowhere"):
        timing._step_ms(contest, contest.arms[0], None, slot)


def test_timing_is_for_the_machine_that_it_is_started_on(shards, tmp_path):
    path = tiny.write(tmp_path / "c.toml", shards, {"cosine": {}})
    code, said = tiny.contest(path, tmp_path / "runs", "--timing", "--executor", "slurm")
    assert code == 2
    assert "error: --timing measures the machine that it is started on" in said
