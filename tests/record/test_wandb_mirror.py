"""The W&B mirror against the real wandb: offline files, a server on loopback, deaths of both.

Each case is a process of its own, as a trainer would be: what matters is also that it ends.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from wandb.util import get_core_path

from record.runlog import read_metrics, read_record, read_summary
from record.wandb_mirror import new_id, resolve_mode
from tests.jobs import ROOT

WANDB = Path(sys.executable).with_name("wandb")

PROGRAM = """
import itertools, os, signal, subprocess, sys, time
from pathlib import Path
from record import wandb_mirror
from record.runlog import RunLog, WandbOptions

wandb_mirror.FINISH_SECONDS, wandb_mirror.INIT_SECONDS = 4.0, 3.0
directory, mode, steps, pause, offset, hook = sys.argv[1:]
options = WandbOptions(mode, "bench", "adamw-s1", group="schedules", job_type="wsd")
log = RunLog(Path(directory), config_toml="seed = 1\\n", config={"train": {"seed": 1}},
             resume_offset=int(offset) if offset else None, wandb=options)
first = sum(1 for _ in open(directory + "/metrics.jsonl")) // 2
print("imported wandb:", "wandb" in sys.modules)
for step in range(first, first + int(steps)):
    log.log(step, {"val/loss": 11.0 - step / 7, "time/eval_seconds": 0.25})
    log.log(step, {"train/loss": 10.0 - step / 7, "train/grad_norm": 0.1 * step, "mfu": None})
    time.sleep(float(pause))
    exec(hook)
print("offset:", log.offset())
began = time.monotonic()
log.finish("finished", {"final_val_loss": 10.0, "diverged": False, "converged_step": None})
print("finish seconds:", time.monotonic() - began)
"""


def launch(directory: Path, mode: str, steps: int = 20, pause: float = 0.0, *, offset: str = "",
           hook: str = "pass", **env: str) -> subprocess.Popen[str]:  # fmt: skip
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    clean |= {"HOME": str(directory.parent), "NETRC": str(directory.parent / "netrc")}
    command = [sys.executable, "-c", PROGRAM, directory, mode, steps, pause, offset, hook]
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        env=clean | env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(*args, **env) -> dict[str, str]:
    """Run the program to its end; returns what it printed, by the word before the colon."""
    return ended(launch(*args, **env))


def ended(process: subprocess.Popen[str], timeout: float = 60) -> dict[str, str]:
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    assert err == ""
    lines = out.splitlines()
    facts = dict(line.split(": ", 1) for line in lines)
    assert len(facts) == len(lines), "a line was printed twice"
    return facts


def online(server) -> dict[str, str]:
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40}


def inspect(directory: Path) -> list[dict]:
    """Records of all .wandb files of a run, by what `wandb leet inspect --json` calls."""
    files = sorted((directory / "wandb").glob("*run-*/*.wandb"))
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file"]
    texts = [
        subprocess.check_output([*command, file, file.parents[1]], text=True) for file in files
    ]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def history(directory: Path) -> dict[int, dict]:
    records = inspect(directory)
    rows = [r["history"]["item"] for r in records if r["type"] == "history"]
    return {row["_step"]: {k: v for k, v in row.items() if k[0] != "_"} for row in rows}


def expected(steps: range) -> dict[int, dict]:
    return {
        step: {
            "val/loss": 11.0 - step / 7,
            "time/eval_seconds": 0.25,
            "train/loss": 10.0 - step / 7,
            "train/grad_norm": 0.1 * step,
        }
        for step in steps
    }


def test_offline_run_holds_every_metric_and_what_reports_filter_by(offline):
    directory, said = offline
    assert said["W&B"].startswith("offline, since there are no credentials")
    assert f"wandb sync {directory}/wandb/offline-run-*" in said["W&B"]
    assert history(directory) == expected(range(20))
    records = inspect(directory)
    begun = next(r["run"] for r in records if r["type"] == "run")
    assert (begun["run_group"], begun["job_type"], begun["project"]) == (
        "schedules",
        "wsd",
        "bench",
    )
    assert begun["config"]["update"]["train"] == {"seed": 1}
    summary = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert (summary["status"], summary["final_val_loss"]) == ("finished", 10.0)
    assert summary["diverged"] is False
    assert records[-1]["exit"]["exit_code"] == 0


def test_resumed_run_keeps_its_id(offline, tmp_path):
    directory = shutil.copytree(offline[0], tmp_path / "run")
    first = read_record(directory)["wandb"]["id"]
    run(directory, "offline", 5, offset=offline[1]["offset"])
    assert read_record(directory)["wandb"]["id"] == first
    assert history(directory) == expected(range(25))


def test_offline_run_is_synced_later_by_the_command_that_was_printed(
    offline, tmp_path, wandb_server
):
    directory = shutil.copytree(offline[0], tmp_path / "run")
    command = offline[1]["W&B"].rsplit("`", 2)[1].replace(str(offline[0]), str(directory))
    command = command.replace("wandb sync", f"{WANDB} sync")
    env = os.environ | online(wandb_server) | {"HOME": str(tmp_path)}
    subprocess.run(command, shell=True, check=True, env=env, capture_output=True, timeout=60)
    (rows,) = wandb_server.history.values()
    assert [row["_step"] for row in rows.values()] == list(range(20))


def test_online_run_streams_everything(tmp_path, wandb_server):
    directory = tmp_path / "run"
    said = run(directory, "auto", **online(wandb_server))
    run_id = read_record(directory)["wandb"]["id"]
    assert said["W&B"] == f"{wandb_server.url}/lab/bench/runs/{run_id}"
    assert wandb_server.buckets[0]["groupName"] == "schedules"
    assert wandb_server.buckets[0]["jobType"] == "wsd"
    rows = wandb_server.history[run_id].values()
    sent = {r["_step"]: {k: v for k, v in r.items() if k[0] != "_"} for r in rows}
    assert sent == expected(range(20))
    assert wandb_server.summary["final_val_loss"] == 10.0
    assert wandb_server.exit_codes == [0]


@pytest.mark.parametrize("death", ["refuses", "hangs"])
def test_a_server_lost_in_the_middle_costs_one_line_and_bounded_time(tmp_path, wandb_server, death):
    directory = tmp_path / "run"
    process = launch(directory, "auto", 60, 0.05, **online(wandb_server))
    assert wandb_server.created.wait(30)
    while len(read_metrics(directory)) < 20:  # it trains, and W&B holds an open connection
        time.sleep(0.05)
    wandb_server.stop() if death == "refuses" else wandb_server.awake.clear()
    began = time.monotonic()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert time.monotonic() - began < 20  # 3 s of training, 4 s of finish, leaving Python
    lines = [line for line in out.splitlines() if line.startswith("W&B")]
    assert len(lines) == 2  # the address, the loss
    assert "not all was uploaded in 4 s" in lines[1]
    assert f"wandb sync {directory}/wandb/run-* --include-online" in lines[1]
    assert len(read_metrics(directory)) == 120
    assert read_summary(directory)["status"] == "finished"
    assert history(directory) == expected(range(60))  # on disk, for later


def test_a_server_that_never_answers_means_offline(tmp_path):
    directory = tmp_path / "run"
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    said = run(directory, "auto", **nobody)
    assert said["W&B"].startswith("offline, since the server gave no usable answer")
    assert history(directory) == expected(range(20))
    assert read_record(directory)["wandb"]["mode"] == "offline"


def test_a_killed_wandb_service_is_started_again_and_loses_nothing(tmp_path):
    directory = tmp_path / "run"
    hook = (
        "if step == 30:\n"
        " found = subprocess.run(['pgrep', '-P', str(os.getpid()), 'wandb-core'],"
        " capture_output=True, text=True).stdout.split()\n"
        " os.kill(int(found[0]), signal.SIGTERM)"
    )
    said = run(directory, "offline", 60, 0.02, hook=hook)
    assert len([line for line in said if line == "W&B"]) == 1
    assert len(list((directory / "wandb").glob("offline-run-*"))) == 2
    assert history(directory) == expected(range(60))


def test_signals_to_the_process_group_do_not_reach_the_service(tmp_path):
    directory = tmp_path / "run"
    hook = (
        "if step == 5:\n"
        " signal.signal(signal.SIGTERM, lambda *_: None)\n"
        " signal.signal(signal.SIGINT, lambda *_: None)\n"
        " os.setpgid(0, 0)\n"
        " os.killpg(0, signal.SIGTERM)\n"
        " os.killpg(0, signal.SIGINT)"
    )
    run(directory, "offline", 20, 0.02, hook=hook)
    assert len(list((directory / "wandb").glob("offline-run-*"))) == 1
    assert history(directory) == expected(range(20))


@pytest.mark.parametrize(
    ("mode", "env"), [("disabled", {}), ("auto", {"WANDB_MODE": "disabled"})]
)  # fmt: skip
def test_disabled_leaves_no_trace(tmp_path, mode, env):
    directory = tmp_path / "run"
    said = run(directory, mode, **env)
    assert "W&B" not in said
    assert said["imported wandb"] == str(mode == "auto")
    assert not (directory / "wandb").exists()
    assert len(read_metrics(directory)) == 40


def test_mode_follows_credentials_and_the_users_own_settings(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    settings = SimpleNamespace(
        mode="online", api_key=None, identity_token_file=None, base_url="https://api.wandb.ai"
    )
    assert resolve_mode("auto", settings)[0] == "offline"
    assert resolve_mode("online", settings)[0] == "offline"
    netrc.write_text("machine elsewhere.org login user password x\n")
    assert resolve_mode("auto", settings)[0] == "offline"
    netrc.write_text(f"machine api.wandb.ai\n  login user\n  password {'0' * 40}\n")
    netrc.chmod(0o600)
    assert resolve_mode("auto", settings)[0] == "online"
    settings.mode = "offline"
    assert resolve_mode("auto", settings)[0] == "offline"
    assert resolve_mode("online", settings)[0] == "online"
    settings.mode = "disabled"
    assert resolve_mode("auto", settings)[0] == "disabled"
    netrc.unlink()
    settings.mode, settings.api_key = "online", "0" * 40
    assert resolve_mode("auto", settings)[0] == "online"


def test_ids_are_new_each_time_and_made_of_characters_that_wandb_takes():
    first, second = new_id("my_lab.Opt/x:1-wsd-s1"), new_id("my_lab.Opt/x:1-wsd-s1")
    assert first != second
    assert first.startswith("my_lab.Opt-x-1-wsd-s1-")
