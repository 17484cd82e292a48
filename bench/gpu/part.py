"""One part of bench.gpu: its rows, on disk after each of them, and how it starts programs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launch.signals import end_with
from record.hardware import code_hash
from record.runlog import read_summary
from storage import read_json, write_json

ROOT = Path(__file__).parents[2]
TINY = {  # configs/quickstart.toml, so small that a CPU trains it in seconds
    "model.block_size": 32,
    "model.n_layer": 2,
    "model.n_head": 2,
    "model.n_embd": 32,
    "train.batch_tokens": 512,
    "train.micro_batch_size": 8,
    "eval.tokens": 2048,
}
Row = dict[str, Any]  # "name", then columns; of a check: expected, found, ok


@dataclass(frozen=True)
class Settings:
    """What the parts are given."""

    out: Path
    device: str  # "cuda" or "cpu"
    tiny: bool
    build_nanogpt: Path | None  # its folder

    @property
    def work(self) -> Path:
        """What the parts write besides their rows: tokens, runs, copies."""
        return self.out / "work"

    @property
    def words(self) -> list[str]:
        """As a command line."""
        words = ["--out", str(self.out), "--device", self.device, *["--tiny"][: self.tiny]]
        return [*words, "--build-nanogpt", str(self.build_nanogpt)] if self.build_nanogpt else words

    def tokens(self) -> Path:
        """Shards of the text that every machine has, written by the first part that asks."""
        folder = self.work / "tokens"
        run([sys.executable, "-m", "data", "stdlib", "--out", str(folder)])
        return folder


class Part:
    """The rows of one part, in a JSON file that is whole at any moment.

        {"tables": {title: [row, ...]}, "done": {work: {"seconds", "code", "ended"}},
         "now": {"table", "name", "since"} or null}

    A second process goes on where the first has stopped: `rows` skips what is done.
    """

    def __init__(self, out: Path, name: str) -> None:
        self.file = out / f"{name}.json"
        self.content = read_json(self.file) or {"tables": {}, "done": {}, "now": None}

    def rows(self, table: str, name: str, work: Callable[[], Row | Iterable[Row]]) -> None:
        """Do `work`, unless it is done, and keep the rows that it returns; a dict is one row."""
        key = f"{table}: {name}"
        if key in self.content["done"] or name in self._failed(table):
            return
        print(f"--- {key}", flush=True)
        began = time.time()
        self.content["now"] = {"table": table, "name": name, "since": began}
        self._write()
        found = work()
        rows = [{"name": name, **found}] if isinstance(found, dict) else list(found)
        names = {row["name"] for row in rows}
        others = [r for r in self.content["tables"].get(table, []) if r["name"] not in names]
        self.content["tables"][table] = others + rows
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        facts = {"seconds": round(time.time() - began, 1), "code": code_hash(), "ended": ended}
        if not any(map(_not_made, rows)):  # those wait for a package, say
            self.content["done"][key] = facts
        self.content["now"] = None
        self._write()

    def row(self, table: str, name: str) -> Row | None:
        """A row that was measured, or None."""
        for row in self.content["tables"].get(table, []):
            if row["name"] == name and "error" not in row:
                return dict(row)
        return None

    def fail(self, reason: str) -> bool:
        """Make a row of what was being done when the process ended; False if there was nothing."""
        now = self.content["now"]
        if now:
            rows = self.content["tables"].setdefault(now["table"], [])
            rows.append({"name": now["name"], "error": reason})
            self.content["now"] = None
            self._write()
        return bool(now)

    def retry(self) -> None:
        """Forget what failed or was cut off, so that it is tried again."""
        for table, rows in self.content["tables"].items():
            self.content["tables"][table] = [row for row in rows if "error" not in row]
        self.content["now"] = None
        if self.file.exists():
            self._write()

    def problems(self) -> list[str]:
        """Rows that failed and checks that found something else, one line each."""
        rows = [row for table in self.content["tables"].values() for row in table]
        failed = [f"{row['name']}: {row['error']}" for row in rows if "error" in row]
        wrong = [row for row in rows if row.get("ok") is False]
        found = [f"{row['name']}: {row['found']}, not {row['expected']}" for row in wrong]
        return failed + found

    def left_out(self) -> list[str]:
        """Checks that could not be made, and why, one line each."""
        rows = [row for table in self.content["tables"].values() for row in table]
        return [f"{row['name']}: {row['found']}" for row in rows if _not_made(row)]

    def _failed(self, table: str) -> set[str]:
        rows = self.content["tables"].get(table, [])
        return {row["name"] for row in rows if "error" in row}

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, self.content)


def _not_made(row: Row) -> bool:
    """Whether a check could not be made."""
    return "ok" in row and row["ok"] is None


def check(name: str, expected: str, found: object, ok: bool | None) -> Row:
    """A line of a check; ok None: it could not be made, and `found` says why."""
    return {"name": name, "expected": expected, "found": str(found), "ok": ok}


def run(command: Sequence[str], folder: Path = ROOT) -> str:
    """Run a program to its end, in `folder`; returns what it printed, which goes to the log too.

    Modules of `folder` come first, then those that PYTHONPATH adds to this process.

    Raises:
        RuntimeError: it failed; the message is the last line that it printed.
    """
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    variables = os.environ | {"PYTHONPATH": path}
    given: dict[str, Any] = {"cwd": folder, "env": variables, "text": True}
    given |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    printed = []
    with subprocess.Popen(command, preexec_fn=end_with(os.getpid()), **given) as process:
        assert process.stdout
        for line in process.stdout:
            printed.append(line)
            print(line, end="", flush=True)
    if process.returncode:
        said = [line.strip() for line in printed if line.strip()] or ["it printed nothing"]
        raise RuntimeError(f"exit code {process.returncode}: {said[-1]}")
    return "".join(printed)


def flags(values: dict[str, Any]) -> list[str]:
    """Keys of the configuration as words of a command line."""
    return [word for key, value in values.items() for word in (f"--{key}", str(value))]


def finished(directory: Path) -> dict[str, Any]:
    """The summary of a run that has finished.

    Raises:
        RuntimeError: it has not.
    """
    summary = read_summary(directory)
    if not summary or summary["status"] != "finished":
        status = summary["status"] if summary else "without a summary"
        raise RuntimeError(f"{directory} is {status}, not finished")
    return summary
