"""What `python -m report` does once its command line is parsed."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from report.formats import interval, loss, metric_words, short, signed
from report.judgement import Judgement, judge
from report.page import PICTURE, page, picture
from report.results import RESULTS, keep, results
from report.run import WANDB_PREFIX, ReportError
from report.sections import markdown
from report.sources import read, table_of
from report.study import Study
from report.tables import sections
from report.wandb_report import publish
from storage import write_atomically

SHOWN_ARMS = 20  # in the terminal


def carry_out(options: argparse.Namespace, command: str) -> int:
    """Do what `command` says; returns the exit code, after one line for a user error."""
    try:
        _report(options, command)
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _report(options: argparse.Namespace, command: str) -> None:
    """Read, judge, write, and print the verdict."""
    entity, _, project = (options.wandb or "").partition("/")
    if options.wandb and (not entity or not project or "/" in project):
        raise ReportError(f"--wandb {options.wandb!r} should be ENTITY/PROJECT")
    study = read(options.paths, options.baseline)
    if options.target is not None:
        study = replace(study, target=options.target)
    judgement = judge(
        study,
        metric=options.metric,
        censor_diverged=options.censor_diverged,
        wanted=options.wanted,
    )
    folders = [Path(path) for path in options.paths if not path.startswith(WANDB_PREFIX)]
    if options.out is None and (kept := next(filter(table_of, folders), None)):
        raise ReportError(f"{kept} is a published contest; give --out DIR, so that it is kept")
    home = folders[0] if folders else Path()
    files = _write(study, judgement, options.out or home, command)
    if len(options.paths) == 1 and folders:
        keep(home.parent if home.is_file() else home, files[0].parent)
    print("\n".join(filter(None, [judgement.headline, judgement.judged_on])))
    print("\n".join(summary(judgement)))
    if judgement.problems:
        print(f"problems: {len(judgement.problems)}, the first: {judgement.problems[0]}")
    print("\n".join(map(str, files)))
    if options.wandb:
        print(publish(study, judgement, entity, project))


def summary(judgement: Judgement) -> list[str]:
    """A line per arm for the terminal, best first, with the interval that agrees with the call."""
    table = [("arm", metric_words(judgement.metric), "n", "difference, 95 % jointly", "verdict")]
    for r in judgement.rows[:SHOWN_ARMS]:
        mean = loss(r.mean) if judgement.metric.endswith("_loss") else short(r.mean, 4)
        if c := r.comparison:
            ends = interval(c.joint_low, c.joint_high, signed) if c.tested else ""
            gap = f"{signed(c.difference)} {ends}" if c.tested else ""
            table.append((r.arm, mean, str(r.n), gap, c.words))
        else:
            table.append((r.arm, mean, str(r.n), "", "baseline"))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(word.ljust(n) for word, n in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    more = len(judgement.rows) - SHOWN_ARMS
    return [*lines, f"and {more} more arms, in report.md"] if more > 0 else lines


def _write(study: Study, judgement: Judgement, folder: Path, command: str) -> list[Path]:
    """Write the files; returns their paths. command: what the user typed."""
    shown = sections(study, judgement, command)
    texts = {
        "report.md": markdown(judgement, shown),
        RESULTS: results(study),
        "report.html": page(study, judgement, shown),
        PICTURE: picture(judgement),
    }
    folder.mkdir(parents=True, exist_ok=True)
    found = {folder / name: text for name, text in texts.items() if text is not None}
    for path, text in found.items():
        write_atomically(path, text)
    return list(found)
