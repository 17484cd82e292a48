"""How a contest ends: the settings that its tuning chose, and the first words of its report.

The report is a process of its own, since contest/ imports nothing of report/. It reads what the
runs left on disk, as anybody could, and writes report.html, report.md and results.csv there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from contest.job import python_path
from contest.watch import in_words
from record.contest import Ledger, TunedArm


def conclude(home: Path) -> None:
    """Print the conclusion of a contest whose runs have all ended; home: its folder."""
    ledger = Ledger.read(home)
    for arm, tuned in ledger.arms.items() if ledger else ():
        print(f"{arm}: {_choice(tuned)}")
    sys.stdout.flush()
    done = subprocess.run(
        [sys.executable, "-m", "report", str(home)],
        env=os.environ | {"PYTHONPATH": python_path()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        print(done.stdout.strip())
        return
    last = next(reversed(done.stderr.strip().splitlines()), "it printed nothing")
    print(f"no report: {last}; try again: python -m report {home}", file=sys.stderr)


def _choice(tuned: TunedArm) -> str:
    """What the tuning of an arm chose, in words."""
    if tuned.best is None:
        return "no setting, since all trials failed or diverged"
    edges = f", at the edge of what was tried in {', '.join(tuned.edges)}" if tuned.edges else ""
    trials = sum(trial.candidate for trial in tuned.trials)
    return f"{in_words(tuned.best)} is the best of {trials} trials{edges}"
