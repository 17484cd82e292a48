"""`python -m report.fill PAGE.md...`: fill the tables of Markdown pages from published contests.

    <!-- report: docs/results/schedules_small headline leaderboard -->
    ... written by this command; what stands here is replaced ...
    <!-- end of report -->

A mark names a contest's folder (relative to the current one) and the sections wanted, by their ids;
or `transfer FOLDER FOLDER`, `claims FILE.toml`, `choices FOLDER...`, `batches FOLDER...`. Text
outside the marks is the author's. A contest without a folder is not run yet, and the page says so.
Exit codes: 0 written, 2 user error, reported in one line.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from report import batches, choices, claims, transfer
from report.page import PICTURE
from report.published import published
from report.run import ReportError
from report.sections import Section, escaped, markdown_body
from report.tables import sections
from storage import write_atomically

BEGIN, END = "<!-- report: ", "<!-- end of report -->"
MARKED = re.compile(rf"^{BEGIN}(.*?) -->\n(.*?)^{END}$", re.DOTALL | re.MULTILINE)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    p = argparse.ArgumentParser(prog="python -m report.fill", allow_abbrev=False)
    p.description = (__doc__ or "").split("\n")[0]
    p.add_argument("pages", nargs="+", type=Path, metavar="PAGE.md")
    for page in p.parse_args(arguments).pages:
        try:
            old = page.read_text(encoding="utf-8")
            new = filled(old)
            if new != old:
                write_atomically(page, new)
        except (ReportError, OSError, UnicodeDecodeError) as error:
            print(f"error: {page}: {error}", file=sys.stderr)
            return 2
        print(f"{page}: {'filled' if new != old else 'as it was'}")
    return 0


def filled(page: str) -> str:
    """The page with each marked part written anew.

    Raises:
        ReportError: a mark has no end, or names a section that there is not.
    """
    if page.count(BEGIN) != len(MARKED.findall(page)):
        raise ReportError(f"a line '{BEGIN}...' has no line '{END}' after it; add one")
    return MARKED.sub(lambda mark: f"{BEGIN}{mark[1]} -->\n{part(mark[1])}\n{END}", page)


def part(words: str) -> str:
    """What the words of one mark ask for, as Markdown.

    Raises:
        ReportError: the words do not fit; a source of theirs cannot be read.
    """
    try:
        first, *rest = shlex.split(words)
    except ValueError:  # no words, or an open quotation
        valid = f"a folder and sections, or {', '.join(KINDS)} and their paths"
        raise ReportError(f"'{BEGIN}{words} -->' names nothing; give {valid}") from None
    if first not in KINDS:
        return _sections(first, rest)
    lacking = [path for path in rest if not Path(path.partition("@")[0]).exists()]
    if first == "transfer" and lacking:
        return _not_run(lacking[0])
    kind = KINDS[first]
    if kind.takes and len(rest) != kind.takes:
        raise ReportError(f"{first} takes {kind.words}, not {len(rest)} words")
    return markdown_body(kind.section(rest))


class _Kind(NamedTuple):
    section: Callable[[list[str]], Section]
    takes: int  # words; 0: any number
    words: str = ""


KINDS = {
    "transfer": _Kind(lambda paths: transfer.section(*paths), 2, "two contests"),
    "claims": _Kind(lambda paths: claims.section(Path(*paths)), 1, "one file"),
    "choices": _Kind(choices.section, 0),
    "batches": _Kind(batches.section, 0),
}


def _sections(folder: str, wanted: Sequence[str]) -> str:
    """Sections of one contest."""
    if not Path(folder).exists():
        return _not_run(folder)
    study, judgement = published(folder)
    found = {s.id: markdown_body(s) for s in sections(study, judgement, "python -m report.fill")}
    found["headline"] = f"> {escaped(judgement.headline)}"
    found["picture"] = f"![{escaped(judgement.headline)}]({Path(folder).name}/{PICTURE})"
    if unknown := [name for name in wanted if name not in found]:
        raise ReportError(f"{folder} has no section {unknown[0]!r}; it has {', '.join(found)}")
    return "\n\n".join(found[name] for name in wanted)


def _not_run(path: str) -> str:
    name = Path(path.partition("@")[0]).name
    return f"Not run yet: `python -m contest configs/contest/{name}.toml`."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
