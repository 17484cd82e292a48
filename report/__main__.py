"""`python -m report PATH...`: judge runs, and write report.md, results.csv and report.html.

    python -m report runs/schedules                     # a contest's folder: baseline from its plan
    python -m report runs --baseline adamw-cosine       # any folder of runs
    python -m report wandb:lab/gpt2-optimizer-bench/schedules --baseline cosine

Reading disturbs no run: it works while others still train. Exit codes: 0 written, 2 user error,
reported in one line.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from report.judgement import Judgement, judge
from report.page import page
from report.results import results
from report.run import WANDB_PREFIX, ReportError
from report.sections import markdown
from report.sources import read
from report.study import Study
from report.tables import sections
from report.verdict import METRICS
from report.wandb_report import publish
from storage import write_atomically


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _report(options, shlex.join(["python", "-m", "report", *arguments]))
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m report", description=(__doc__ or "").split("\n")[0])
    where = "folder of runs, or wandb:ENTITY/PROJECT[/GROUP]"
    p.add_argument("paths", nargs="+", metavar="PATH", help=where)
    p.add_argument("--baseline", metavar="ARM", help="the arm that the others are compared with")
    target = "val loss, nats; default: the baseline's mean final val loss"
    p.add_argument("--target", type=float, metavar="LOSS", help=target)
    metric = "what is judged; lower is better (default: final_val_loss)"
    p.add_argument("--metric", choices=METRICS, default="final_val_loss", help=metric)
    censor = "leave diverged runs out of means (default: their loss is infinite)"
    p.add_argument("--censor-diverged", action="store_true", help=censor)
    wanted = "nats; how many seeds show it? May be given several times"
    p.add_argument(
        "--wanted", type=float, action="append", default=[], metavar="DIFFERENCE", help=wanted
    )
    out = "where the files go (default: the first folder in PATH)"
    p.add_argument("--out", type=Path, metavar="DIR", help=out)
    p.add_argument("--wandb", metavar="ENTITY/PROJECT", help="publish a W&B report too")
    return p


def _report(options: argparse.Namespace, command: str) -> None:
    """Read, judge, write, and print the verdict."""
    entity, slash, project = (options.wandb or "").partition("/")
    if options.wandb and not (slash and entity and project):
        raise ReportError(f"--wandb {options.wandb!r} should be ENTITY/PROJECT")
    study = read(options.paths)
    if options.baseline is not None:
        study = replace(study, baseline=options.baseline)
    if options.target is not None:
        study = replace(study, target=options.target)
    judgement = judge(
        study,
        metric=options.metric,
        censor_diverged=options.censor_diverged,
        wanted=options.wanted,
    )
    folders = (Path(path) for path in options.paths if not path.startswith(WANDB_PREFIX))
    files = _write(study, judgement, options.out or next(folders, Path()), command)
    print(judgement.headline)
    if judgement.problems:
        print(f"problems: {len(judgement.problems)}, the first: {judgement.problems[0]}")
    print("\n".join(map(str, files)))
    if options.wandb:
        print(publish(study, judgement, entity, project))


def _write(study: Study, judgement: Judgement, folder: Path, command: str) -> list[Path]:
    """Write the three files; returns their paths. command: what the user typed."""
    shown = sections(study, judgement, command)
    texts = {
        "report.md": markdown(judgement, shown),
        "results.csv": results(study),
        "report.html": page(study, judgement, shown),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
