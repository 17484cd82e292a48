"""`python -m report PATH...`: judge runs; write report.md, results.csv, report.html, forest.svg.

    python -m report runs/schedules                     # a contest's folder: baseline from its plan
    python -m report runs --baseline adamw-cosine       # any folder of runs
    python -m report wandb:lab/gpt2-optimizer-bench/schedules --baseline cosine
    python -m report docs/results/schedules_small --out again   # a published contest: a table

Reading disturbs no run: it works while others still train. Exit codes: 0 written, 2 user error,
reported in one line.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.validation import positive
from report import METRICS


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    from report.command import carry_out  # imports scipy, which --help and a typo do without

    return carry_out(options, shlex.join(["python", "-m", "report", *arguments]))


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m report", allow_abbrev=False, description=(__doc__ or "").split("\n")[0]
    )
    where = "folder of runs or of a published contest, results.csv, or wandb:ENTITY/PROJECT[/GROUP]"
    p.add_argument("paths", nargs="+", metavar="PATH", help=where)
    base = "what the others are compared with: an arm, or a run of it, by its name or folder"
    p.add_argument("--baseline", metavar="ARM", help=base)
    target = "val loss, nats; default: the baseline's mean final val loss"
    p.add_argument("--target", type=positive, metavar="LOSS", help=target)
    metric = "what is judged; lower is better (default: final_test_loss, or final_val_loss where "
    metric += "a run has no test loss)"
    p.add_argument("--metric", choices=METRICS, help=metric)
    censor = "leave diverged runs out of means (default: their loss is infinite)"
    p.add_argument("--censor-diverged", action="store_true", help=censor)
    wanted = "nats; how many seeds show it? May be given several times"
    p.add_argument(
        "--wanted", type=positive, action="append", default=[], metavar="DIFFERENCE", help=wanted
    )
    out = "where the files go (default: the first folder in PATH)"
    p.add_argument("--out", type=Path, metavar="DIR", help=out)
    p.add_argument("--wandb", metavar="ENTITY/PROJECT", help="publish a W&B report too")
    return p


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
