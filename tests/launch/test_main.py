"""`python -m launch` is no command any more."""

import subprocess
import sys

from tests.jobs import ROOT


def test_old_command_of_contests_names_the_new_one_in_one_line():
    words = ["configs/contest/quickstart.toml", "--out", "my runs", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-m", "launch", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(
        "python -m contest configs/contest/quickstart.toml --out 'my runs' --dry-run"
    )
