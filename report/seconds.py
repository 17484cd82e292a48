"""Which runs had their machine for themselves: only their seconds may be compared.

A run that shares its machine takes longer, by an amount that nobody knows afterwards. The record
says how many other runs there were when a launch began and ended, and the load; the times of all
launches say which runs of a study ran side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from report.run import Run

MARGIN = 0.5  # of the load average, for the system's own work
SIDE_BY_SIDE = "another run of this study at the same time"
PROFILED = "some of its updates were profiled, which takes time"
NOT_RECORDED = "whether it shared its machine is not recorded"
TIMES = ("train_seconds", "step_ms", "optimizer_ms", "data_wait_ms", "tokens_per_second", "mfu")


def is_time(metric: str) -> bool:
    """Whether a number of the summary depends on the clock."""
    return metric.startswith(TIMES)


def with_shared(runs: Sequence[Run]) -> list[Run]:
    """The runs, each with the reason why its seconds do not count, if there is one.

    runs: of one study, trunks and tuning included; a branch has the seconds of its trunk.
    """
    beside = _side_by_side(runs)
    reasons = {run.source: beside.get(i) or _recorded(run) for i, run in enumerate(runs)}
    trunks = {run.name: run for run in runs if run.role == "trunk"}
    return [replace(run, shared=_with_trunks(run, reasons, trunks)) for run in runs]


def _with_trunks(run: Run, reasons: dict[str, str | None], trunks: dict[str, Run]) -> str | None:
    """The reason of the run, or of a trunk that it branched from."""
    reason, parent = reasons[run.source], _trunk(run, trunks)
    while reason is None and parent is not None:
        reason = reasons[parent.source] and f"of its trunk: {reasons[parent.source]}"
        parent = _trunk(parent, trunks)
    return reason


def _trunk(run: Run, trunks: dict[str, Run]) -> Run | None:
    """The trunk that the run branched from, if it is among `trunks`."""
    return trunks.get((run.facts.get("branched_from") or {}).get("run", ""))


def _recorded(run: Run) -> str | None:
    """What the launches of one run say."""
    launches = run.facts.get("launches") or []
    states = [launch.get(when) for launch in launches for when in ("at_start", "at_end")]
    if not launches or not all(states):
        return NOT_RECORDED
    counts = [state.get("other_runs") for state in states if state]
    if any(count is None for count in counts):
        return NOT_RECORDED
    if most := max(counts):
        return f"{most} other run{'s' if most > 1 else ''} on its machine"
    if any((launch.get("environment") or {}).get("profiled_updates") for launch in launches):
        return PROFILED
    return next(filter(None, map(_loaded, launches)), None)


def _loaded(launch: dict[str, Any]) -> str | None:
    """Whether more processes wanted a core at the end of a launch than the run has threads."""
    environment, load = launch.get("environment") or {}, launch["at_end"].get("load_average")
    ranks = int((environment.get("torchrun") or {}).get("LOCAL_WORLD_SIZE", 1))
    own = ranks * (environment.get("threads") or 1)
    if load is None or load <= own + MARGIN:
        return None
    return f"a load of {load:.1f}, with {own} threads of its own"


@dataclass(frozen=True)
class _Launch:
    """The place of a run in the list, where it ran, and from when to when."""

    run: int
    host: str
    started: datetime
    ended: datetime


def _side_by_side(runs: Sequence[Run]) -> dict[int, str]:
    """Runs of which a launch overlaps one of another run on the same host, by place in the list."""
    launches = [
        _Launch(
            i, launch["host"], *(datetime.fromisoformat(launch[k]) for k in ("started", "ended"))
        )
        for i, run in enumerate(runs)
        for launch in run.facts.get("launches") or []
        if {"host", "started", "ended"} <= launch.keys()
    ]
    found: dict[int, str] = {}
    open_now: list[_Launch] = []
    for launch in sorted(launches, key=lambda launch: launch.started):
        open_now = [other for other in open_now if other.ended > launch.started]
        for other in open_now:
            if other.run != launch.run and other.host == launch.host:
                found |= dict.fromkeys((launch.run, other.run), SIDE_BY_SIDE)
        open_now.append(launch)
    return found
