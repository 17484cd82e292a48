"""`python -m report PATH...`: judge runs, and write report.md, results.csv and report.html.

    python -m report runs/schedules                     # a contest's folder: baseline from its plan
    python -m report runs --baseline adamw-cosine       # any folder of runs
    python -m report wandb:lab/gpt2-optimizer-bench/schedules --baseline cosine

Reading disturbs no run: it works while others still train. Exit codes: 0 written, 2 something to
mend, said in one line.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from report.runs import ReportError, Study, read
from report.verdict import METRICS, Judgement, judge


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m report", description=(__doc__ or "").split("\n")[0])
    p.add_argument("paths", nargs="+", metavar="PATH",
                   help="folder of runs, or wandb:ENTITY/PROJECT[/GROUP]")  # fmt: skip
    p.add_argument("--baseline", metavar="ARM", help="the arm that the others are compared with")
    p.add_argument("--target", type=float, metavar="LOSS",
                   help="val loss, nats; default: the baseline's mean final val loss")  # fmt: skip
    p.add_argument("--metric", choices=METRICS, default="final_val_loss",
                   help="what is judged; lower is better (default: final_val_loss)")  # fmt: skip
    p.add_argument("--censor-diverged", action="store_true",
                   help="leave diverged runs out of means (else: infinite)")  # fmt: skip
    p.add_argument("--wanted", type=float, action="append", default=[], metavar="DIFFERENCE",
                   help="nats; how many seeds show it? Several times: several")  # fmt: skip
    p.add_argument("--out", type=Path, metavar="DIR",
                   help="where the files go (default: the first folder in PATH)")  # fmt: skip
    p.add_argument("--wandb", metavar="ENTITY/PROJECT", help="publish a W&B report too")
    return p


def main(arguments: Sequence[str]) -> int:
    """Exit code."""
    options = parser().parse_args(arguments)
    try:
        return report(options, shlex.join(["python", "-m", "report", *arguments]))
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def report(options: argparse.Namespace, command: str) -> int:
    """Read, judge, write, say."""
    from report.page import write

    study = read(options.paths)
    if options.baseline is not None:
        study = replace(study, baseline=options.baseline)
    if options.target is not None:
        study = replace(study, target=options.target)
    judgement = judge(study, metric=options.metric, censor_diverged=options.censor_diverged,
                      wanted=options.wanted)  # fmt: skip
    local = (Path(path) for path in options.paths if not path.startswith("wandb:"))
    files = write(study, judgement, options.out or next(local, Path()), command)
    say(judgement, files)
    if options.wandb:
        publish(study, judgement, options.wandb)
    return 0


def publish(study: Study, judgement: Judgement, where: str) -> None:
    """A W&B report with the same content."""
    from report import wandb_report

    entity, slash, project = where.partition("/")
    if not (slash and entity and project):
        raise ReportError(f"--wandb {where!r} should be ENTITY/PROJECT")
    print(wandb_report.publish(study, judgement, entity, project))


def say(judgement: Judgement, files: Sequence[Path]) -> None:
    """The verdict in the terminal."""
    print(judgement.headline)
    if judgement.problems:
        print(f"{len(judgement.problems)} problems, the first: {judgement.problems[0]}")
    print("\n".join(map(str, files)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
