"""Contests for real: planners and runs as processes, killed in every way."""

import json
import os
import pickle
import signal
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from configs import ConfigError
from configs.size import parameters
from contest import branches
from contest.attempts import attempts
from contest.estimate import paces
from contest.file import read
from contest.job import resolved, state
from contest.local import Attempt
from contest.plan import make
from contest.watch import Lines, duration, table
from record import history
from record.runlog import read_metrics, read_record, read_summary
from tests.contest import tiny
from tests.jobs import assert_same, end_of, once, wait_until
from train_gpt2 import main as train

TWO = {"cosine": {}, "wsd": {"schedule.name": "wsd"}}
LONG = {"train.total_steps": 200, "eval.every": 100, "checkpoint.every": 0}


def assert_same_as_alone(job, calm):
    """A run has the bits of the one that is trained alone, in `calm`."""
    assert train([*job.arguments, "--log.dir", str(calm)]) == 0
    assert_same(end_of(job.directory), end_of(calm / job.directory.name))


def test_failed_run_is_written_down_and_stops_no_other(shards, tmp_path, monkeypatch):
    """One arm's class breaks in its first step, until what it imports is mended."""
    own = "import torch, lab_inner\nclass Mine(torch.optim.Adagrad):\n"
    own += "    def step(self):\n        lab_inner.check()\n        return super().step()\n"
    (tmp_path / "lab.py").write_text(own)
    (tmp_path / "lab_inner.py").write_text("def check(): raise OSError('hm')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lab", raising=False)
    arms = {"cosine": {}, "mine": {"optimizer.name": "lab.Mine", "optimizer.lr": 3e-3}}
    tuning = {"tuning_seeds": [101], "tune": {"optimizer.lr": [3e-3]}}
    path = tiny.write(tmp_path / "c.toml", shards, arms, seeds=[1], **tuning)
    out = tmp_path / "runs"
    code, said = tiny.contest(path, out)
    assert code == 1
    assert "ended     tuning mine seed 101 (optimizer.lr 0.003)" in said
    assert "OSError: hm" in said
    assert "problem: arm 'mine': all 1 trials failed or diverged" in said
    home = out / "tiny"
    plan = json.loads((home / "plan.json").read_text())
    assert [(run["arm"], run["role"]) for run in plan["runs"]] == [
        ("cosine", "tuning"),
        ("mine", "tuning"),
        ("cosine", "report"),
    ]
    past = attempts(home)
    bad = plan["runs"][1]["id"]
    assert [a["exit_code"] for a in past[bad]] == [1]
    assert any("OSError: hm" in line for line in past[bad][0]["last_lines"])
    assert read_summary(home / plan["runs"][2]["directory"])["status"] == "finished"
    ledger = json.loads((home / "tuning.json").read_text())["arms"]
    assert ledger["mine"]["trials"][0]["status"] == "failed"
    assert ledger["cosine"]["best"] == {"optimizer.lr": 3e-3}

    (tmp_path / "lab_inner.py").write_text("def check(): pass\n")  # not the class's own file
    code, again = tiny.contest(path, out)
    assert code == 1
    assert "began" not in again, "nothing is missing, and what failed is not tried again unasked"
    code, said = tiny.contest(path, out, "--retry-failed")
    assert code == 0, said
    assert said.count("began") == 2
    assert "4 of 4 runs done" in said
    assert [a["exit_code"] for a in attempts(home)[bad]] == [1, 0]
    (entry,), problems = history.read(home)
    assert (entry.runs, entry.ended, problems) == (2, {}, []), "written once, before the first run"


@pytest.fixture(scope="module")
def disturbed(shards, tmp_path_factory):
    """What was seen of a contest that was disturbed, once for all workers."""

    def make(folder):
        (folder / "seen").write_bytes(pickle.dumps(disturb(shards, folder)))

    return pickle.loads((once(tmp_path_factory, "disturbed", make) / "seen").read_bytes())


def disturb(shards, folder):
    """A contest of two runs, disturbed in every way until it is done; what was seen meanwhile.

    1. A second planner comes while the first one lives. 2. The first is killed, and the next one
    starts while the first one's runs still end, one after the other. 3. A run is killed. 4. A
    terminal sends Ctrl-C, which reaches the planner only. 5. The same command runs what is missing.

    The runs are frozen while this happens, so that they do not end before.
    """
    path = tiny.write(folder / "c.toml", shards, TWO, seeds=[1], settings=LONG)
    out = folder / "runs"
    seen = SimpleNamespace(home=out / "tiny", calm=folder / "calm")
    first = tiny.Planner(path, out)
    seen.killed, seen.other = runs = tiny.jobs(path, out)
    processes = tiny.freeze(runs)
    try:
        seen.first = first.pid
        seen.refused = tiny.contest(path, out)
        tiny.kill(first.pid)
        first.process.wait()
        second = tiny.Planner(path, out)
        wait_until(lambda: tiny.holder(seen.home) == second.pid, 300)
        orphans = [*processes.values()]
        for job in runs:  # the second run's old process ends when the first run's new one lives
            os.kill(processes[job.id], signal.SIGCONT)
            processes |= tiny.freeze([job], known=orphans)
        tiny.kill(processes[seen.killed.id])
        wait_until(lambda: seen.killed.id in attempts(seen.home), 300)
        os.kill(second.pid, signal.SIGINT)
        wait_until(lambda: "stopping" in second.output(), 300)
        os.kill(processes[seen.other.id], signal.SIGCONT)
        seen.stopped = second.ends(130)
        seen.attempts = attempts(seen.home)
        seen.states = [state(job) for job in runs]
        seen.last = tiny.contest(path, out)
    finally:
        for pid in (first.pid, *processes.values()):
            tiny.kill(pid)
    return seen


def test_second_planner_is_refused_while_the_first_lives(disturbed):
    code, said = disturbed.refused
    assert code == 2
    line = said.splitlines()[-1]
    assert f"this contest is being run: {disturbed.home} is in use by host" in line
    assert f"pid {disturbed.first} since" in line


def test_runs_of_a_killed_planner_checkpoint_and_the_next_planner_resumes_them(disturbed):
    for job in (disturbed.killed, disturbed.other):
        launches = read_record(job.directory)["launches"]
        assert launches[0]["status"] == "stopped"
        assert launches[1]["environment"]["start_step"] > 0


def test_killed_run_is_written_down_and_stops_no_other(disturbed):
    assert disturbed.attempts[disturbed.killed.id][0]["exit_code"] == -signal.SIGKILL
    assert "stopping: 1 runs write a checkpoint and end" in disturbed.stopped
    launches = read_record(disturbed.killed.directory)["launches"]
    assert [launch.get("status") for launch in launches] == ["stopped", None, "finished"]


def test_ctrl_c_has_the_runs_checkpoint_and_the_same_command_runs_what_is_missing(disturbed):
    assert disturbed.states == ["stopped", "stopped"]
    launches = read_record(disturbed.other.directory)["launches"]
    assert [launch["status"] for launch in launches] == ["stopped", "stopped", "finished"]
    code, said = disturbed.last
    assert code == 0
    assert said.count("began") == 2


@pytest.mark.parametrize("name", ["killed", "other"])
def test_disturbed_run_has_the_bits_of_a_calm_one(disturbed, name):
    assert_same_as_alone(getattr(disturbed, name), disturbed.calm)


def test_branches_have_the_bits_of_runs_of_their_own(shards, tmp_path):
    """Evaluations do not fall on branch points, and one branch is of the other spike rule."""
    wsd = {"schedule.name": "wsd", "schedule.warmup_steps": 3, "schedule.decay_steps": 0.25}
    settings = {"eval.every": 7, "eval.tokens": 512, "checkpoint.every": 0}
    branches = {"arms": ["wsd"], "lengths": [24, 48]}
    path = tiny.write(tmp_path / "c.toml", shards, {"wsd": wsd}, seeds=[1], branches=branches,
                      settings=settings)  # fmt: skip
    out = tmp_path / "runs"
    assert tiny.contest(path, out)[0] == 0
    trunk, report = tiny.jobs(path, out, "trunk"), tiny.jobs(path, out)
    for source, job in zip(trunk, report, strict=True):
        record = read_record(job.directory)
        begun = {"run": source.directory.name, "step": source.length}
        assert record["branched_from"] == begun | {"device": "cpu", "dtype": "float32"}
        assert record["launches"][-1]["environment"]["start_step"] == source.length
        assert_same_as_alone(job, tmp_path / "calm")
        alone = read_record(tmp_path / "calm" / job.directory.name)
        assert record["hashes"] == alone["hashes"]
    second = read_record(trunk[1].directory)["launches"][0]["environment"]
    assert second["start_step"] == trunk[0].length, "the second segment begins where the first ends"


def test_branch_keeps_an_evaluation_of_its_trunk_but_not_its_test_loss(shards, tmp_path):
    constant = {"schedule.name": "constant", "schedule.warmup_steps": 2, "eval.every": 6}
    (trunk, *_) = make(tiny.parse(shards, {"a": constant}), tmp_path).jobs
    assert train(trunk.words()) == 0
    longer = tiny.parse(shards, {"a": constant | {"train.total_steps": 24}})
    job = make(longer, tmp_path / "other").jobs[0]
    branches.prepare(trunk.directory, resolved(tuple(job.words())))
    ends = [read_metrics(run.directory)[-1] for run in (trunk, job)]
    assert ends[0]["step"] == ends[1]["step"] == trunk.config.train.total_steps
    assert ends[0]["val/loss"] == ends[1]["val/loss"]
    assert ["test/loss" in line for line in ends] == [True, False]


def test_branch_from_another_run_is_refused(shards, tmp_path):
    source = tiny.parse(shards, {"a": {"schedule.name": "constant"}})
    (trunk, *_) = make(source, tmp_path).jobs
    assert train(trunk.words()) == 0
    other = tiny.parse(shards, {"a": {"schedule.name": "wsd", "train.grad_clip": 0.5}})
    sooner = tiny.parse(shards, {"a": {"schedule.name": "linear", "train.total_steps": 13}})
    for contest, said in ((other, r"differs in \[train\]"), (sooner, "another learning rate")):
        job = make(contest, tmp_path / "other").jobs[0]
        with pytest.raises(ValueError, match=said):
            branches.prepare(trunk.directory, resolved(tuple(job.words())))
        assert not job.directory.exists()


@pytest.mark.parametrize("record", [None, "{}"])
def test_branch_from_a_run_without_hashes_is_refused(shards, tmp_path, record):
    """Without record.json, and with one that has no hashes."""
    constant = {"schedule.name": "constant", "schedule.warmup_steps": 2}
    (trunk, *_) = make(tiny.parse(shards, {"a": constant}), tmp_path).jobs
    assert train(trunk.words()) == 0
    longer = tiny.parse(shards, {"a": constant | {"train.total_steps": 24}})
    job = make(longer, tmp_path / "other").jobs[0]
    path = trunk.directory / "record.json"
    path.write_text(record) if record else path.unlink()
    with pytest.raises(ConfigError, match=r"has no record\.json with hashes; remove the folder"):
        branches.prepare(trunk.directory, resolved(tuple(job.words())))
    assert not job.directory.parent.exists()


@pytest.mark.slow
def test_two_ranks_one_of_them_killed(shards, tmp_path):
    path = tiny.write(tmp_path / "c.toml", shards, {"cosine": {}}, seeds=[1],
                      settings=LONG | {"checkpoint.every": 5})  # fmt: skip
    out = tmp_path / "runs"
    planner = tiny.Planner(path, out, "--jobs", "1", "--nproc", "2")
    (job,) = tiny.jobs(path, out)
    wait_until(lambda: tiny.updates(job.directory) > 8, 300)
    tiny.kill(tiny.holder(job.directory))
    planner.ends(1)
    assert attempts(out / "tiny")[job.id][0]["exit_code"] == -signal.SIGKILL
    assert state(job) == "stopped", "killed, not failed: the same command goes on"
    assert read_record(job.directory)["launches"][-1]["environment"]["world_size"] == 2


def test_dry_run_takes_the_time_from_the_record_or_from_a_probe(shards, tmp_path, capsys):
    from contest.__main__ import main

    path = tiny.write(tmp_path / "c.toml", shards, TWO, seeds=[1])
    out = tmp_path / "runs"
    assert main([str(path), "--out", str(out), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "time: from a probe of" in said
    assert f"{2 * 12 * 512:,}" in said, "tokens of two runs"
    assert not out.exists()
    job = tiny.jobs(path, out)[0]
    assert train(job.words()) == 0
    assert main([str(path), "--out", str(out), "--dry-run"]) == 0
    assert "time: from 1 finished runs of this size under" in capsys.readouterr().out
    pace = next(iter(paces(make(read(path), out), out).values()))
    summary = read_summary(job.directory)
    assert pace.seconds_per_step == pytest.approx(summary["train_seconds"] / 12)
    assert summary["parameters"] == parameters(job.config.model)


def test_table_shows_every_state(shards, tmp_path):
    contest = tiny.parse(shards, TWO, seeds=[1, 2, 3])
    jobs = make(contest, tmp_path).jobs
    tiny.ended(jobs[0], 2.34567)
    tiny.ended(jobs[1], None, "diverged")
    tiny.failed(jobs[2])
    plan = make(contest, tmp_path)
    live = Attempt(jobs[3], None, None, "", 0.0, 0, step=6, loss=3.14159)
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    states = {job.id: state(job) for job in jobs}
    console.print(table(plan, states, {jobs[3].id: live}))
    said = console.export_text()
    for word in ("cosine (baseline)", "seed 3", "2.3457", "diverged", "failed", "50 % 3.142"):
        assert word in said
    assert said.count("waiting") == 2
    Lines(console).ended(jobs[2], "failed", ["error: no such thing"], 3.0)
    assert "after 3 s: failed: error: no such thing" in console.export_text()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (45, "45 s"), (720, "12 min"), (12000, "3 h 20 min"), (190800, "2 d 5 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
