"""attempts.jsonl of a contest: one line for every attempt at a run that has ended.

It imports nothing heavy, since launch/slurm.sbatch calls it at the end of every task:

    python -m contest.attempts HOME ID STARTED CODE
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import runlog

ATTEMPTS = "attempts.jsonl"
LAST_LINES = 20  # of a run's output, kept in attempts.jsonl

Attempts = dict[str, list[dict[str, Any]]]  # by id of the run


def attempts(home: Path) -> Attempts:
    """The attempts that have ended, by id of the run, from attempts.jsonl."""
    path = home / ATTEMPTS
    found: Attempts = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            attempt = json.loads(line)
        except ValueError:
            continue  # the planner was killed as it wrote; the run's own record is on disk
        found.setdefault(attempt["id"], []).append(attempt)
    return found


def note(home: Path, identity: str, started: str, code: int, lines: list[str]) -> None:
    """Append an attempt that has ended; `lines` are the last ones of its output."""
    line = {
        "id": identity,
        "started": started,
        "ended": runlog.now(),
        "exit_code": code,
        "last_lines": lines,
    }
    with (home / ATTEMPTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def killed_by(lines: list[str]) -> int | None:
    """Minus the signal that ended a rank, from torchrun's last lines; its exit code is always 1.

    torchrun lists the root cause last, after the ranks that it ended because of it.
    """
    killed = re.findall(r"exitcode\s*:\s*(-\d+)", "\n".join(lines))
    return int(killed[-1]) if killed else None


def tail(path: Path, size: int = 65536) -> list[str]:
    """The last whole lines of a file, at most `size` bytes of them; [] without the file."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        begin = max(0, file.seek(0, os.SEEK_END) - size)
        file.seek(begin)
        text = file.read().decode("utf-8", "replace")
    lines = text.splitlines()
    return lines[1:] if begin else lines


def main(argv: Sequence[str]) -> int:
    """Note how a SLURM task ended: its exit code, or minus the signal that ended the run."""
    home, identity, started, code = Path(argv[0]), argv[1], argv[2], int(argv[3])
    lines = tail(home / "logs" / f"{identity}.log")[-LAST_LINES:]
    # torchrun gives 1, whatever the cause; srun gives 128 + signal.
    signal = (killed_by(lines) if code == 1 else None) or min(0, 128 - code)
    note(home, identity, started, signal or code, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
