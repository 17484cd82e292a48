"""history.jsonl of a contest: what was planned, and which results were there by then.

    entries, problems = read(Path("runs/schedules"))

contest/ appends an entry before the first run of a plan and whenever the plan has changed; nothing
removes one. Each entry carries a check of itself and of the entry before, and plan.json names the
last one. So an edit by hand, a line that is gone and a file that is gone are found. Somebody who
computes the checks anew is not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from configs.validation import Strict

HISTORY = "history.jsonl"


class Entry(Strict):
    """A plan as it was when runs were about to start."""

    time: str  # UTC
    commit: str | None  # of this project; None outside a git tree
    dirty: bool | None  # the checkout differed from the commit
    sha256: str  # of `text`
    text: str  # of the contest file
    settings: dict[str, str]  # arm -> hash of its configuration, without seeds and tuned values
    seeds: dict[str, tuple[int, ...]]  # arm -> of its reporting runs
    runs: int  # reporting runs planned
    ended: dict[str, tuple[int, ...]]  # arm -> seeds of reporting runs that had ended, one per run
    lost: bool = False  # entries before this one had been removed
    check: str = ""  # of this entry and of the one before

    def same_plan(self, other: Entry) -> bool:
        """Whether both plan the same, by the same code."""
        keys = ("commit", "sha256", "settings", "seeds", "runs")
        return all(getattr(self, key) == getattr(other, key) for key in keys)

    def checked(self, before: str) -> Entry:
        """With its check; before: the check of the entry before, "" for the first."""
        table = self.model_dump(exclude={"check"})
        words = before + json.dumps(table, sort_keys=True)
        return self.model_copy(update={"check": hashlib.sha256(words.encode()).hexdigest()})


def read(home: Path) -> tuple[list[Entry], list[str]]:
    """The entries in a contest's folder, and what is wrong with them in words; ([], []) without."""
    try:
        text = (home / HISTORY).read_text(encoding="utf-8")
    except FileNotFoundError:
        return [], []
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"{HISTORY} cannot be read: {error}"]
    entries: list[Entry] = []
    problems: list[str] = []
    before: str | None = ""  # check of the line before; None if that line is damaged
    for number, line in enumerate(filter(None, text.split("\n")), 1):
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError:
            problems.append(f"{HISTORY}: line {number} is damaged and left out")
            before = None
            continue
        if before is not None and entry.checked(before).check != entry.check:
            problems.append(
                f"{HISTORY}: line {number} does not fit its check: it was edited, or a line before "
                "it was"
            )
        entries.append(entry)
        before = entry.check
    return entries, problems


def append(home: Path, entry: Entry, before: Sequence[Entry]) -> Entry:
    """Write an entry behind those that `read` found; returns it with its check.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    checked = entry.checked(before[-1].check if before else "")
    line = json.dumps(checked.model_dump()).encode() + b"\n"
    with (home / HISTORY).open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line  # behind a line that was cut off
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return checked
