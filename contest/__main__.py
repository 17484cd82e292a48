"""`python -m contest CONTEST.toml`: plan a contest and run what is missing of it.

    python -m contest configs/contest/quickstart.toml --dry-run
    python -m contest configs/contest/quickstart.toml
    python -m report runs/quickstart
    python -m contest configs/contest/quickstart.toml --executor slurm --time 4:00:00

If it is killed, the same command resumes. docs/contests.md says how to write a contest file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code.

    0: all runs are done, or only shown (--status, --dry-run); 1: some are not done (yet); 2: user
    error; 130: stopped.
    """
    options = _parser().parse_args(argv)
    from contest.command import carry_out  # imports much, which --help and a typo do without

    return carry_out(options)


def _parser() -> argparse.ArgumentParser:
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m contest", allow_abbrev=False, description=__doc__, formatter_class=kind
    )
    add = parser.add_argument
    add("contest", type=Path, metavar="CONTEST.toml")
    text = "where the contest's folder is made (default: runs)"
    add("--out", type=Path, default=Path("runs"), metavar="DIR", help=text)
    add("--dry-run", action="store_true", help="print the plan and what it will cost")
    text = "with --dry-run: time a few updates, however long they take"
    add("--probe", action="store_true", help=text)
    add("--status", action="store_true", help="print how the runs stand")
    text = "time some updates of each arm alone, in turn: seconds that can be compared"
    add("--timing", action="store_true", help=text)
    text = "runs at once (default: as many as there are GPUs or cores for)"
    add("--jobs", type=int, metavar="N", help=text)
    add("--gpus-per-run", type=int, metavar="M", help="default 1; 0: CPU cores")
    text = "runs that share a GPU, for small models (default 1)"
    add("--runs-per-gpu", type=int, metavar="K", help=text)
    text = "processes of a run (default: its GPUs)"
    add("--nproc", type=int, metavar="N", help=text)
    add("--retry-failed", action="store_true", help="run failed ones again")
    text = "slurm: submit what can run and return (docs/slurm.md)"
    add("--executor", choices=["local", "slurm"], default="local", help=text)
    add = parser.add_argument_group("with --executor slurm").add_argument
    add("--partition", metavar="NAME")
    add("--time", metavar="LIMIT", help="of a job; a longer run continues in the next job")
    add("--nodes", type=int, default=1, metavar="N", help="of a run (default: 1)")
    text = "more options of sbatch: '--account=lab --cpus-per-task=16'"
    add("--sbatch", default="", metavar="OPTIONS", help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
