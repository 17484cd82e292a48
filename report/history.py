"""The plan's history in words: what was planned, and what was changed after results were there."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.loading import flat
from record import history
from record.contest import PlanFile
from record.history import HISTORY, Entry

SEEDS = {"seeds": "seed", "tuning_seeds": "tuning seed", "tie_seeds": "tie seed"}
SEEDS |= {"data_seeds": "data seed"}
SAME = "only comments or the layout of the contest file changed"


@dataclass(frozen=True)
class History:
    """What the report says of one contest's plan.

    lines: everything, in the order of time. late: what a reader must know before believing a
    verdict: changes made after results were there, and a history that is damaged or not known.
    """

    lines: tuple[str, ...]
    late: tuple[str, ...]


def read(home: Path, plan: PlanFile) -> History:
    """The history of the contest in `home`."""
    entries, problems = history.read(home)
    if not entries and not problems:
        gone = f"{HISTORY} was removed" if plan.history else f"there is no {HISTORY}"
        unknown = f"the plan's history is not known: {gone}"
        return History((unknown,), (unknown,) if plan.history else ())
    if plan.history and plan.history not in {entry.check for entry in entries}:
        problems.append(f"{HISTORY}: the entry that {PlanFile.file_name} names was removed")
    lines, late = list(problems), list(problems)
    for before, entry in zip([None, *entries], entries, strict=False):
        said = _first(entry) if before is None else _changed(before, entry)
        if entry.lost:
            said.append("earlier entries had been removed: what they planned is not known")
        said = [f"{entry.time[:16].replace('T', ' ')} UTC: {line}" for line in said]
        lines += said
        if entry.lost or entry.ended:
            late += [line for line in said if SAME not in line]
    return History(tuple(lines), tuple(late))


def _first(entry: Entry) -> list[str]:
    """The first entry's line."""
    code = f"commit {entry.commit[:10]}" if entry.commit else "no git commit"
    code += " and changes that were not committed" if entry.dirty else ""
    what = f"{len(entry.seeds)} arms, {entry.runs} reporting runs; {code}"
    if entry.ended:
        known = f"{_when(entry)}: what was planned before is not known"
        return [f"the history begins {known} (now: {what})"]
    return [f"planned before the first run: {what}"]


def _changed(before: Entry, entry: Entry) -> list[str]:
    """Every change of one entry against the one before, and what was known by then."""
    try:
        found = _changes(tomllib.loads(before.text), tomllib.loads(entry.text))
    except ValueError:  # edited by hand, which the checks have said
        found = ["the contest file changed, in a way that cannot be read"]
    same_text = before.text == entry.text
    moved = [
        arm for arm, identity in entry.settings.items() if before.settings.get(arm) != identity
    ]
    if same_text and moved:
        found.append(f"the files that {', '.join(moved)} is made of changed")
    if before.commit != entry.commit:
        old, new = (e.commit[:10] if e.commit else "no commit" for e in (before, entry))
        found.append(f"the project's code changed from {old} to {new}")
    if not found and not same_text:
        found = [SAME]
    return [f"{change}, {_when(entry)}" for change in found]


def _when(entry: Entry) -> str:
    """Which results were there."""
    count = sum(map(len, entry.ended.values()))
    if not count:
        return "before any reporting run had ended"
    seeds = _listed(sorted({seed for each in entry.ended.values() for seed in each}))
    return f"after {count} results were there (seeds {seeds})"


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two contest files, in words."""
    tables = [{row["name"]: row for row in file.get("arm", [])} for file in (old, new)]
    gone = [f"arm {name} removed" for name in tables[0] if name not in tables[1]]
    come = [f"arm {name} added" for name in tables[1] if name not in tables[0]]
    found = [*gone, *come, *_differences("", old.get("contest", {}), new.get("contest", {}))]
    for name in [name for name in tables[0] if name in tables[1]]:
        found += _differences(f"arm {name}: ", tables[0][name], tables[1][name])
    return found


def _differences(where: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Keys of one table whose values differ; `where` stands before each line."""
    a, b = flat(old), flat(new)
    found: list[str] = []
    for key in dict.fromkeys([*a, *b]):
        if key in SEEDS and key in a and key in b:
            found += [where + line for line in _seeds(SEEDS[key], a[key], b[key])]
        elif key not in b:
            found.append(f"{where}{key} = {a[key]} removed")
        elif key not in a:
            found.append(f"{where}{key} = {b[key]} added")
        elif a[key] != b[key]:
            found.append(f"{where}{key} changed from {a[key]} to {b[key]}")
    return found


def _seeds(name: str, old: Sequence[int], new: Sequence[int]) -> list[str]:
    """Seeds that came or went."""
    found = []
    for word, seeds in (
        ("added", [seed for seed in new if seed not in old]),
        ("removed", [seed for seed in old if seed not in new]),
    ):
        if seeds:
            found.append(f"{name}{'s' if len(seeds) > 1 else ''} {_listed(seeds)} {word}")
    return found


def _listed(seeds: Sequence[int]) -> str:
    """1-3 for neighbours, else 1, 3, 8."""
    run = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}-{seeds[-1]}" if run else ", ".join(map(str, seeds))
