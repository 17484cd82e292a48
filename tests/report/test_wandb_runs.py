"""Runs read from W&B, with its own client against the stand-in on loopback, are those on disk.

wandb keeps its server and credentials for the life of a process: each case is one.
"""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from record.runlog import read_metrics, read_record, read_summary
from report.wandb_runs import settled
from tests.jobs import ROOT
from tests.record.test_wandb_mirror import online
from tests.wandb_server import WandbServer

# Streams small runs of a contest as the trainer does, tuning, a diverged and a foreign one too.
STREAM = """
import math, sys
from pathlib import Path
import wandb
from record.metrics import StreamMetrics, summarize
from record.runlog import RunLog, WandbOptions, read_metrics

def stream(folder, arm, seed, group, loss=None, steps=12):
    name = f"adamw-{arm}-s{seed}"
    config = {"seed": seed, "data_seed": seed, "optimizer": {"name": "adamw", "lr": 0.1 * seed},
              "schedule": {"name": arm}, "train": {"total_steps": steps}, "note": None}
    options = WandbOptions("online", "bench", name, entity="lab", group=group, job_type=arm)
    with RunLog(Path(folder) / name, config_toml="", config=config, resume_offset=None,
                wandb=options) as log:
        log.record(hashes={"weights": f"w{seed}", "batches": f"b{seed}"},
                   environment={"device": "H100", "dtype": "bfloat16", "host": "a"})
        scores = StreamMetrics(steps)
        for step in range(steps):
            asked = {"hellaswag/acc_norm": 0.25 + step / 70} if seed == 1 else {}
            if step % 4 == 0:
                log.log(step, {"val/loss": 8 - step / 7, "time/eval_seconds": 0.25, **asked})
            value = loss if loss is not None and step == 5 else 8 - step / 3
            lines = {"train/loss": value, "train/grad_norm": 0.1 + step / 7, "train/lr": 1e-3,
                     "time/train_seconds": 1.5 * (step + 1), "time/step_ms": 1500.0,
                     "tokens": 64 * (step + 1), "mfu": None}
            log.log(step, lines | (scores.update(value, 0.1) if math.isfinite(value) else {}))
            if not math.isfinite(value):
                break
        else:
            log.log(steps, {"val/loss": 8 - steps / 7, "time/eval_seconds": 0.25, **asked})
        told = summarize(read_metrics(log.directory), steps) | {"parameters": 1000}
        log.finish("finished" if math.isfinite(value) else "diverged", told)

folder = sys.argv[1]
for seed in (1, 2):
    stream(folder, "cosine", seed, "schedules")
stream(folder, "wsd", 1, "schedules", loss=math.inf)
stream(folder + "/tuning", "wsd", 101, "schedules-tuning")
stream(folder + "/again", "cosine", 2, "schedules")
stream(folder + "/other", "cosine", 1, "another")
wandb.init(project="bench", entity="lab", group="another", name="foreign", dir=folder,
           mode="online", config={"seed": "x"}, settings=wandb.Settings(silent=True))
wandb.log({"accuracy": 0.5})
wandb.finish()
"""

READ = """
import pickle, sys
from report.run import ReportError
from report.wandb_runs import read_wandb
import report.wandb_runs as source
source.TIMEOUT = 2
source.PATIENCE = {"x_graphql_retry_max": 0}
results = []
for path in sys.argv[2:]:
    try:
        results.append(read_wandb(path))
    except ReportError as error:
        results.append(str(error))
with open(sys.argv[1], "wb") as file:
    pickle.dump(results, file)
"""


def process(code, folder, *words, **env):
    """A process of its own with W&B's settings from `env` alone; it must say nothing."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    clean |= {"HOME": str(folder), "NETRC": str(folder / "netrc")} | env
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, env=clean,
                          text=True, capture_output=True, timeout=300)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def read(folder, *paths, **env):
    """What read_wandb gives for each path: runs, or the text of the error."""
    assert process(READ, folder, folder / "out", *paths, **env) == ""
    return pickle.loads((folder / "out").read_bytes())


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A server with the streamed runs, two to a page, and the folders that they came from."""
    server, folder = WandbServer(), tmp_path_factory.mktemp("lab")
    server.page_size = 2
    process(STREAM, folder, folder / "runs", **online(server))
    yield server, folder
    server.stop()


@pytest.fixture(scope="module")
def answers(lab):
    """Of the server, to all paths of this file."""
    server, folder = lab
    paths = ["wandb:lab/bench/schedules", "wandb:lab/bench", "wandb:lab/bench/nothing"]
    paths += ["wandb:lab/nowhere", "wandb:bench"]
    return dict(zip(paths, read(folder, *paths, **online(server)), strict=True))


def test_a_run_read_from_wandb_is_the_run_on_disk(lab, answers):
    runs = {(run.role, run.name): run for run in answers["wandb:lab/bench/schedules"]}
    folders = {
        ("report", "adamw-cosine-s1"): "adamw-cosine-s1",
        ("report", "adamw-cosine-s2"): "again/adamw-cosine-s2",
        ("report", "adamw-wsd-s1"): "adamw-wsd-s1",
        ("tuning", "adamw-wsd-s101"): "tuning/adamw-wsd-s101",
    }
    assert set(runs) == set(folders)
    for key, run in runs.items():
        folder = lab[1] / "runs" / folders[key]
        lines, summary = read_metrics(folder), read_summary(folder)
        for kind, columns in (("train/loss", run.train), ("val/loss", run.val)):
            wanted = [line for line in lines if kind in line]
            names = {name for line in wanted for name, value in line.items() if value is not None}
            assert set(columns) == names  # W&B is not sent what is null in all lines
            for name in names:
                theirs = [line.get(name, np.nan) for line in wanted]
                np.testing.assert_array_equal(columns[name], theirs, strict=False)
        assert run.status == summary.pop("status")
        assert run.summary == summary
        assert run.hashes == read_record(folder)["hashes"]
        assert run.environment == {"device": "H100", "dtype": "bfloat16"}
        assert (run.contest, run.arm) == ("schedules", run.name.split("-")[1])
        assert run.name.endswith(f"-s{run.seed}")
        assert run.data_seed == run.seed
        assert run.config["optimizer"] == {"name": "adamw", "lr": 0.1 * run.seed}
    assert runs["report", "adamw-wsd-s1"].status == "diverged"
    assert runs["report", "adamw-cosine-s1"].problems == ()
    assert "final_hellaswag_acc_norm" in runs["report", "adamw-cosine-s1"].summary


def test_an_earlier_attempt_under_the_same_name_is_named_and_left_out(answers):
    (run,) = (r for r in answers["wandb:lab/bench/schedules"] if r.name == "adamw-cosine-s2")
    (said,) = run.problems
    assert said.startswith("left out wandb:lab/bench/adamw-cosine-s2-")
    assert run.source not in said


def test_a_project_without_a_group_gives_the_runs_of_all_its_contests(answers):
    runs = answers["wandb:lab/bench"]
    assert {run.contest for run in runs} == {"schedules", "another"}
    assert len(runs) == 6


def test_a_foreign_run_is_named(answers):
    (run,) = (r for r in answers["wandb:lab/bench"] if r.name == "foreign")
    assert (run.arm, run.status, run.seed) == ("foreign", "failed", 1)
    assert "its configuration in W&B is not one of train_gpt2.py" in " ".join(run.problems)


@pytest.mark.parametrize(
    ("state", "told", "status"),
    [
        ("running", "stopped", "running"),  # resumed after a stop
        ("finished", "finished", "finished"),
        ("finished", "stopped", "stopped"),
        ("failed", "diverged", "diverged"),  # exit code 3
        ("failed", "failed", "failed"),
        ("crashed", "stopped", "failed"),
        ("killed", None, "failed"),
    ],
)
def test_status_follows_wandb_and_the_trainers_record(state, told, status):
    problems = []
    assert settled(state, told, problems) == status
    assert bool(problems) == (status not in ("finished", "diverged"))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("wandb:lab/bench/nothing", "has no runs; groups of lab/bench: another, schedules, sch"),
        ("wandb:lab/nowhere", "W&B has no project lab/nowhere, or this account cannot see it"),
        ("wandb:bench", "names no W&B project; write wandb:entity/project[/group]"),
    ],
)
def test_missing_project_or_group_is_a_one_line_error(answers, path, words):
    assert words in answers[path]
    assert "\n" not in answers[path]


def test_missing_account_is_a_one_line_error(tmp_path):
    (said,) = read(tmp_path, "wandb:lab/bench", WANDB_BASE_URL="http://127.0.0.1:9")
    assert said == (
        "no W&B account for http://127.0.0.1:9: run `wandb login`, or set WANDB_API_KEY"
    )


def test_missing_server_is_a_one_line_error(tmp_path):
    env = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    (said,) = read(tmp_path, "wandb:lab/bench", **env)
    assert said.startswith("W&B at http://127.0.0.1:9 did not accept the credentials (")
    assert "check the network" in said
    assert "\n" not in said


def test_refused_credentials_are_a_one_line_error(tmp_path, wandb_server):
    wandb_server.refuses_keys = True
    (said,) = read(tmp_path, "wandb:lab/bench", **online(wandb_server))
    assert said.startswith(f"W&B at {wandb_server.url} did not accept the credentials (")
    assert "\n" not in said
