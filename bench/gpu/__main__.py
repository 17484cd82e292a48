"""Everything that has to be shown on a GPU, in one command: the most important first.

    python -m bench.gpu                                       # one GPU, an hour, runs/gpu
    python -m bench.gpu --build-nanogpt ../build-nanogpt      # throughput beside it as well
    python -m bench.gpu --minutes 15                          # as far as that goes
    python -m bench.gpu --table > page.md                     # the page again, from what is there
    python -m bench.gpu --device cpu --tiny                   # all parts on two cores, two minutes

Parts: smoke, throughput, levers, optimizers, memory, overhead, contest. Each is a process of its
own that writes a row to OUT/<part>.json as soon as it is measured. A row that fails or hangs is
recorded with its last line, and the part goes on with the next one. The same command goes on where
the last one stopped, and tries again what failed. At the end, and after each part, the page is in
OUT/gpu.md. Needs torch, numpy, pydantic and tomli-w, and says what else it does without.

Exit codes: 0 all that this machine can measure is as expected; 1 something failed, differs or had
no time left. The last lines say which, and what was left out. 2: a mistake, in one line.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.gpu import table
from bench.gpu.machine import facts
from bench.gpu.part import ROOT, Part, Settings
from configs import ConfigError
from launch.signals import end_with, stop_requests
from storage import LockedError, lock, read_json, write_atomically, write_json

TICK = 0.2  # s between looks at a part
SHARED = 5  # a CPU has other work too


@dataclass(frozen=True)
class Plan:
    """What a part may take on a GPU; on a CPU limits are SHARED times as long."""

    title: str
    estimate: float  # minutes on an H100
    limit: float  # minutes, of one start
    row: float  # minutes, of one row


PARTS = {  # in order of importance; each is bench/gpu/<name>.py
    "smoke": Plan("Smoke: does everything run, and equal its reference?", 6, 12, 4),
    "throughput": Plan("Throughput of GPT-2 124M", 9, 15, 5),
    "levers": Plan("Levers, one by one", 12, 15, 5),
    "optimizers": Plan("Steps of optimizers", 12, 15, 4),
    "memory": Plan("Memory: counted and measured", 6, 9, 4),
    "overhead": Plan("Logging, metrics and checkpoints", 4, 6, 4),
    "contest": Plan("A small contest, to its report", 6, 9, 9),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    settings = Settings(options.out.absolute(), options.device, options.tiny, options.build_nanogpt)
    if options.part:
        import_module(f"bench.gpu.{options.part}").measure(
            settings, Part(settings.out, options.part)
        )
        return 0
    try:
        if options.table:
            print(_page(settings))
            return 0
        _check(settings)
        with lock(settings.out), stop_requests() as signals:
            return _measure_all(settings, time.monotonic() + 60 * options.minutes, signals)
    except (ConfigError, LockedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        "python -m bench.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--minutes", type=float, default=60, help="for all parts of this start (default: 60)")
    add("--out", type=Path, default=Path("runs/gpu"), metavar="FOLDER", help="default: runs/gpu")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--tiny", action="store_true", help="tiny shapes: does the program work?")
    text = "a clone of karpathy/build-nanogpt, for the throughput beside it"
    add("--build-nanogpt", type=lambda x: Path(x).absolute(), metavar="PATH", help=text)
    add("--table", action="store_true", help="print the page from the rows that are there")
    add("--part", choices=PARTS, help=argparse.SUPPRESS)  # the process of one part
    return parser


def _check(settings: Settings) -> None:
    """Check the command line against the machine and against the folder; write machine.json.

    Raises:
        ConfigError: one of them does not fit.
    """
    if settings.device == "cpu" and not settings.tiny:
        raise ConfigError("--device cpu needs --tiny: 124M parameters are too many for a CPU")
    peer = settings.build_nanogpt
    if peer and not (peer / "train_gpt2.py").is_file():
        raise ConfigError(f"{peer} has no train_gpt2.py; clone karpathy/build-nanogpt there")
    now = facts(settings.device, settings.tiny)
    file = settings.out / "machine.json"
    before = read_json(file)
    for name in ("device", "torch", "sizes"):
        if before and before[name] != now[name]:
            raise ConfigError(
                f"{settings.out} holds figures of {name} {before[name]}, not {now[name]}; give"
                " another --out"
            )
    settings.out.mkdir(parents=True, exist_ok=True)
    write_json(file, now)


def _measure_all(settings: Settings, end: float, signals: Sequence[str]) -> int:
    """All parts until `end`; prints what is wrong or missing, and returns the exit code."""
    machine = read_json(settings.out / "machine.json") or {}
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), flush=True)
    problems, left_out = [], []
    for name, plan in PARTS.items():
        if settings.device == "cpu":
            plan = replace(plan, limit=SHARED * plan.limit, row=SHARED * plan.row)
        began = time.monotonic()
        print(f"\n{name}, about {plan.estimate:g} min on a GPU", flush=True)
        command = [sys.executable, "-m", "bench.gpu", "--part", name, *settings.words]
        limit = min(end, began + 60 * plan.limit)
        reason = _carry_out(settings, name, plan, limit, command, signals)
        part = Part(settings.out, name)
        found = [*part.problems(), *([reason] if reason else [])]
        problems += [f"{name}: {line}" for line in found]
        left_out += [f"left out: {name}: {line}" for line in part.left_out()]
        state = "; ".join(found) or "as expected"
        print(f"{name}: {time.monotonic() - began:.0f} s, {state}", flush=True)
        write_atomically(settings.out / "gpu.md", _page(settings))
        if signals:
            print(f"stopped by {signals[0]}; the same command goes on from here", file=sys.stderr)
            return 1
    print(f"\nwritten to {settings.out / 'gpu.md'}")
    verdict = [] if problems else ["all that was measured is as expected"]
    print("\n".join([*left_out, *problems, *verdict]))
    return 1 if problems else 0


def _page(settings: Settings) -> str:
    machine = read_json(settings.out / "machine.json")
    if machine is None:
        raise ConfigError(f"{settings.out} holds no figures; give --out, or measure first")
    parts = {name: Part(settings.out, name) for name in PARTS}
    return table.page(machine, parts, {name: plan.title for name, plan in PARTS.items()})


# ---------------------------------------------------------------- the process of one part


def _carry_out(
    settings: Settings,
    name: str,
    plan: Plan,
    end: float,
    command: list[str],
    signals: Sequence[str],
) -> str | None:
    """Do one part by `command` until `end` or a signal; returns why it is not whole, or None.

    The process of a part ends at the first row that fails: a GPU may be unusable after it. The
    next process goes on with the row that follows.
    """
    Part(settings.out, name).retry()
    log = settings.out / f"{name}.log"
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if settings.device == "cpu" else {}
    while time.monotonic() < end:
        with log.open("ab") as file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | hidden,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with(os.getpid()),
            )
        try:
            reason = _wait(process, settings, name, plan, end, signals)
        finally:
            _end(process)
        if reason is None:
            return None
        if reason == "":
            break
        if not Part(settings.out, name).fail(reason):
            return reason  # before its first row: another process would fail as well
    return "stopped" if signals else f"no time was left; {log.name} has its last lines"


def _wait(
    process: subprocess.Popen[bytes],
    settings: Settings,
    name: str,
    plan: Plan,
    end: float,
    signals: Sequence[str],
) -> str | None:
    """Until the process ends: None if well, else why not; "" if the part has no time left."""
    shown = None
    while process.poll() is None:
        if signals or time.monotonic() > end:
            return ""
        now: dict[str, Any] | None = Part(settings.out, name).content["now"]
        if now and now != shown:
            print(f"  {now['table']}: {now['name']}", flush=True)
            shown = now
        if now and time.time() - now["since"] > 60 * plan.row:
            return f"no end after {plan.row:g} min; last line: {_last_line(settings, name)}"
        time.sleep(TICK)
    if process.returncode:
        return f"exit code {process.returncode}; last line: {_last_line(settings, name)}"
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it has started."""
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 60)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue


def _last_line(settings: Settings, name: str) -> str:
    """The last line of the part's log that says something."""
    text = (settings.out / f"{name}.log").read_text(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "none"


if __name__ == "__main__":
    sys.exit(main())
