"""The plan's history (record/history.py): an entry before the first run of each plan."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

from contest.file import Arm, Contest
from contest.job import ENDED, ROOT, resolved, state
from contest.plan import Plan
from record import history, runlog
from record.contest import PlanFile
from record.hardware import git_state
from record.history import Entry


def note(plan: Plan) -> None:
    """Append what is planned now, unless the last entry says the same.

    Call it before `plan` is written: the plan.json on disk tells whether entries were removed.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    plan.home.mkdir(parents=True, exist_ok=True)
    entries, _ = history.read(plan.home)
    named = _last_named(plan.home)
    entry = _entry(plan, lost=bool(named) and named not in {e.check for e in entries})
    last = entries[-1] if entries else None
    if last and not plan.pending and all(state(job) in ENDED for job in plan.jobs):
        entry = entry.model_copy(update={"commit": last.commit})  # no run starts: no other code
    if entry.lost or last is None or not last.same_plan(entry):
        history.append(plan.home, entry, entries)


def _last_named(home: Path) -> str:
    """Check of the entry that plan.json names as the last; "" where that is not known."""
    try:
        file = PlanFile.read(home)
    except runlog.RecordError:  # damaged: the plan is written anew
        return ""
    return file.history if file else ""


def _entry(plan: Plan, lost: bool) -> Entry:
    """The plan as of now."""
    contest, code = plan.contest, git_state(ROOT) or {}
    lengths = contest.table.branches.lengths if contest.table.branches else (None,)
    return Entry(
        time=runlog.now(),
        commit=code.get("commit"),
        dirty=code.get("dirty"),
        sha256=hashlib.sha256(contest.text.encode()).hexdigest(),
        text=contest.text,
        settings={arm.name: _identity(contest, arm) for arm in contest.arms},
        seeds={arm.name: arm.seeds for arm in contest.arms},
        runs=sum(len(contest.seeds(arm)) for arm in contest.arms) * len(lengths),
        ended=_ended(plan.home),
        lost=lost,
    )


def _identity(contest: Contest, arm: Arm) -> str:
    """Of an arm's configuration with seed 0: it changes with the files that the arm is made of."""
    return resolved(tuple(contest.arguments(arm, (0, 0)))).identity


def _ended(home: Path) -> dict[str, tuple[int, ...]]:
    """Seeds of all reporting runs in the folder that have ended, by arm, also of earlier plans."""
    found: dict[str, list[int]] = {}
    for path in sorted(home.glob(f"*/{runlog.SUMMARY}")):
        if (runlog.read_summary(path.parent) or {}).get("status") not in ENDED:
            continue
        try:
            config = tomllib.loads((path.parent / runlog.CONFIG).read_text(encoding="utf-8"))
            arm, seed = config["log"]["job_type"], config["seed"]
        except (OSError, ValueError, KeyError):
            arm, seed = path.parent.name, 0  # damaged, but its result could be seen all the same
        found.setdefault(str(arm), []).append(seed)
    return {arm: tuple(sorted(seeds)) for arm, seeds in found.items()}
