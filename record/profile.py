"""Where the time of an update goes: a trace of torch's profiler, and a table that is made of it.

The parts are named where they happen, by torch's record_function. On a GPU the time of a kernel
belongs to the part that launched it, wherever the host is by then; on a CPU to the part that runs.
Every moment counts once, so that the parts add up to the whole.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

FOLDER, TRACE, TABLE = "profile", "trace.json.gz", "table.txt"
Spans = list[tuple[float, float]]  # (start, end) in us, ascending, apart from each other

COMPUTED = ("forward", "backward", "optimizer", "evaluation")
HOST = {"data": "waiting for data", "logging": "logging", "checkpoint": "checkpoint"}
ROWS = (*COMPUTED[:2], "communication", "optimizer", *HOST.values(), "evaluation", "other")
ALWAYS = ("forward", "backward", "communication", "optimizer", "waiting for data", "logging")
_ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_LAUNCHES = ("cuda_runtime", "cuda_driver")


class Profile:
    """Profiles `updates` updates of the loop, after the first; does nothing for 0.

    A context around the loop, which calls `step` after each update. At the end of the last one it
    writes trace.json.gz and table.txt into `directory`/profile, and hands the table to `say`.
    """

    def __init__(self, directory: Path, updates: int, say: Callable[[str], None]) -> None:
        self.folder, self.say = directory / FOLDER, say
        self.profiler: torch.profiler.profile | None = None
        self.written = False
        if updates:
            self.profiler = torch.profiler.profile(
                schedule=torch.profiler.schedule(wait=0, warmup=1, active=updates, repeat=1),
                on_trace_ready=self._write,
            )

    def step(self) -> None:
        """An update and all that belongs to it has ended."""
        if self.profiler:
            self.profiler.step()

    def __enter__(self) -> Profile:
        if self.profiler:
            self.profiler.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.profiler is None:
            return
        if kind:  # the run failed, and what it says of itself is no mean of anything
            self.profiler.on_trace_ready = None
        self.profiler.stop()
        if not kind and not self.written:
            self.say("log.profile: nothing to profile, since this launch had one update or none")

    def _write(self, profiler: torch.profiler.profile) -> None:
        with TemporaryDirectory() as place:
            plain = Path(place) / "trace.json"
            profiler.export_chrome_trace(str(plain))
            content = plain.read_bytes()
        text = table(json.loads(content)["traceEvents"])
        if not text:
            return
        self.written, trace = True, self.folder / TRACE
        where = f"{trace}: the trace, for ui.perfetto.dev"
        try:
            self.folder.mkdir(exist_ok=True)
            trace.write_bytes(gzip.compress(content, compresslevel=6))
            (self.folder / TABLE).write_text(text + "\n")
        except OSError as error:  # a full disk: no reason to end the run
            where = f"log.profile: this cannot be kept: {error}"
        self.say(f"{text}\n{where}")


def table(events: Sequence[Mapping[str, Any]]) -> str:
    """The parts of a trace's updates in ms per update, as lines of text; "" without an update."""
    updates, seconds, hidden = parts(events)
    if not updates:
        return ""
    whole = sum(seconds.values())
    lines = [f"{'ms of an update, mean of ' + str(updates):<32}{'ms':>10}{'%':>8}"]
    for name in ROWS:
        if name in ALWAYS or seconds[name]:
            lines.append(_row(name, seconds[name], updates, whole))
    lines.append(_row("together", whole, updates, whole))
    if hidden:
        lines.append(f"(communication beside other work: {hidden / updates / 1e3:.3f} ms more)")
    return "\n".join(lines)


def _row(name: str, us: float, updates: int, whole: float) -> str:
    return f"{name:<32}{us / updates / 1e3:>10.3f}{100 * us / whole:>8.1f}"


def parts(events: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, float], float]:
    """How many updates, the us of each of ROWS in all of them, and of communication beside work.

    events: "traceEvents" of a trace in Chrome's format, with times in us.
    """
    timed = [e for e in events if e.get("ph") == "X"]
    kernels = [e for e in timed if e.get("cat") in _ON_DEVICE]
    notes = [e for e in timed if e.get("cat") == "user_annotation"]
    steps = [e for e in notes if e["name"].startswith("ProfilerStep#")]
    main = {e["tid"] for e in steps}
    regions = {
        name: _joined(_span(e) for e in notes if e["name"] == name and e["tid"] in main)
        for name in (*COMPUTED, *HOST)
    }
    # the last may be what follows the last update of the run
    updates = [e for e in steps if any(_holds(e, start) for start, _ in regions["forward"])]
    waiting = [(row, regions[name]) for name, row in HOST.items()]
    if kernels:
        by_row = _by_row(kernels, timed, regions)
        sent = by_row.pop("communication", [])
        exposed = _without(sent, _joined(span for spans in by_row.values() for span in spans))
        order = [*by_row.items(), ("communication", exposed), *waiting]
    else:
        own = [e for e in timed if e.get("cat") == "cpu_op" and e["tid"] in main]
        own = [e for e in own if not e["name"].startswith("c10d::")]  # hands data to gloo's thread
        sent = _joined(_span(e) for e in timed if e["name"].startswith("gloo:"))
        exposed = _without(sent, _joined(_span(e) for e in own))
        computed = [(name, regions[name]) for name in COMPUTED]
        order = [("communication", exposed), *computed, *waiting]
    left = _joined(_span(e) for e in (*updates, *kernels))
    shares = dict.fromkeys(ROWS, 0.0)
    for row, spans in order:
        rest = _without(left, spans)
        shares[row] += _length(left) - _length(rest)
        left = rest
    shares["other"] += _length(left)
    return len(updates), shares, _length(sent) - _length(exposed)


def _by_row(
    kernels: Sequence[Mapping[str, Any]],
    timed: Sequence[Mapping[str, Any]],
    regions: Mapping[str, Spans],
) -> dict[str, Spans]:
    """When kernels ran on the device, by the part of the loop in which the host launched them."""
    launched = {
        e["args"]["correlation"]: float(e["ts"])
        for e in timed
        if e.get("cat") in _LAUNCHES and "correlation" in e.get("args", {})
    }
    found: dict[str, list[tuple[float, float]]] = {}
    for kernel in kernels:
        at = launched.get(kernel["args"].get("correlation"), float(kernel["ts"]))
        rows = (name for name in COMPUTED if any(a <= at < b for a, b in regions[name]))
        sends = "nccl" in kernel["name"].lower()
        row = "communication" if sends else next(rows, "other")
        found.setdefault(row, []).append(_span(kernel))
    return {row: _joined(spans) for row, spans in found.items()}


def _holds(event: Mapping[str, Any], moment: float) -> bool:
    start, end = _span(event)
    return start <= moment < end


def _span(event: Mapping[str, Any]) -> tuple[float, float]:
    return float(event["ts"]), float(event["ts"]) + float(event["dur"])


def _joined(spans: Iterable[tuple[float, float]]) -> Spans:
    """The same moments as spans that lie apart."""
    joined: Spans = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _without(spans: Spans, others: Spans) -> Spans:
    """The moments of `spans` that are not in `others`."""
    left: Spans = []
    place = 0
    for start, end in spans:
        while place < len(others) and others[place][1] <= start:
            place += 1
        after = place
        while after < len(others) and others[after][0] < end:
            if others[after][0] > start:
                left.append((start, others[after][0]))
            start = max(start, others[after][1])
            after += 1
        if start < end:
            left.append((start, end))
    return left


def _length(spans: Spans) -> float:
    return sum(end - start for start, end in spans)
