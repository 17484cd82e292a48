"""Contest files of runs that take a second, planners as processes, and records by hand."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import tomli_w

from contest import file as contests
from contest.__main__ import main
from contest.job import python_path
from contest.plan import make
from contest.slots import Slot
from optim import build_schedule
from record.runlog import encode
from tests.forked import Forked
from tests.jobs import ROOT, command, wait_until


def table(shards, arms, *, settings=(), **head):
    """A contest over tests.jobs.command's tiny run; `arms`: name -> keys of its [[arm]]."""
    base, *flags = command(shards, Path("unused"))
    tiny = {key[2:]: plain(value) for key, value in zip(flags[::2], flags[1::2], strict=True)}
    tiny.pop("log.dir")
    tiny |= {"train.micro_batch_size": 16} | dict(settings)
    head = {"name": "tiny", "base": [base], "seeds": [1, 2], "settings": tiny} | head
    head.setdefault("baseline", next(iter(arms)))
    return {"contest": head, "arm": [{"name": name} | keys for name, keys in arms.items()]}


def plain(text):
    return int(text) if text.isdigit() else text


def write(path, *args, **kwargs):
    path.write_text(tomli_w.dumps(table(*args, **kwargs)))
    return path


def parse(*args, **kwargs):
    whole = table(*args, **kwargs)
    return contests.parse(whole, tomli_w.dumps(whole))


def contest(path, out, *flags):
    """`python -m contest` in this process, with two runs at once: exit code and output.

    The runs are processes all the same, forked from one that has imported torch.
    """
    said = io.StringIO()
    silent = mock.patch("contest.command.conclude")  # a process; tests/contest/test_conclusion.py
    fast = mock.patch.object(Slot, "start", _forked)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), silent, fast:
        code = main([str(path), "--out", str(out), "--jobs", "2", *flags])
    return code, said.getvalue()


def _forked(slot, job, output):
    """What `Slot.start` starts; `Planner` has the real one."""
    return Forked(
        job.command()[1:],
        os.environ | slot.environment | {"PYTHONPATH": python_path()},
        log=output.name,
    )


class Planner:
    """`python -m contest` as a process of its own, with two runs at once, to be killed."""

    def __init__(self, path, out, *flags):
        words = [sys.executable, "-m", "contest", str(path), "--out", str(out), "--jobs", "2"]
        self.file = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*words, *flags],
            cwd=ROOT,
            stdout=self.file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self.process.pid

    def output(self):
        self.file.seek(0)
        return self.file.read()

    def ends(self, code, timeout=400):
        assert self.process.wait(timeout) == code, self.output()
        return self.output()


def updates(directory):
    """Updates that a run has logged."""
    path = directory / "metrics.jsonl"
    return path.read_bytes().count(b'"train/loss"') if path.exists() else 0


def holder(directory):
    """Process id of whoever holds the folder, or held it last; None before that."""
    path = directory / "lock"
    found = re.search(r"pid (\d+)", path.read_text()) if path.exists() else None
    return int(found.group(1)) if found else None


def freeze(runs, known=()):
    """Stop each run's process when it has done four updates; returns the process ids by run.

    known: processes that are over, of an earlier attempt.
    """
    before = [updates(job.directory) for job in runs]
    frozen = {}

    def all_frozen():
        for job, begun in zip(runs, before, strict=True):
            pid = holder(job.directory)
            if job.id in frozen or pid in (None, *known) or updates(job.directory) < begun + 4:
                continue
            os.kill(pid, signal.SIGSTOP)
            frozen[job.id] = pid
        return len(frozen) == len(runs)

    def explain():
        lines = [f"frozen {frozen}, over before {known}, updates before {before}"]
        for job in runs:
            log = job.log.read_text() if job.log.exists() else "no log"
            lines.append(f"{job.id}: {holder(job.directory)}, {updates(job.directory)}, {log}")
        return "\n".join(lines)

    wait_until(all_frozen, 300, explain)
    return frozen


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def jobs(path, out, role="report"):
    """The plan's runs as of now."""
    return [job for job in make(contests.read(path), out).jobs if job.role == role]


def ended(job, loss, status="finished", **values):
    """A record as the trainer leaves one."""
    job.directory.mkdir(parents=True, exist_ok=True)
    summary = {"status": status, "final_val_loss": loss, "diverged": False} | values
    (job.directory / "summary.json").write_bytes(encode(summary))


def failed(job, code=2):
    """An attempt that ended by itself, badly."""
    job.home.mkdir(parents=True, exist_ok=True)
    line = {"id": job.id, "started": "", "ended": "", "exit_code": code}
    line |= {"last_lines": ["error: no such thing"]}
    with (job.home / "attempts.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def factors(job):
    """Factors of the learning rate, all updates."""
    config = job.config
    given = config.schedule.hyperparameters
    schedule = build_schedule(config.schedule.name, config.train.total_steps, **given)
    return [schedule(step) for step in range(config.train.total_steps)]
