"""What a report is made of: sections of text, tables and lines; and report.md, which prints them.

report.md is the report without its figures, for a terminal, an issue or a pull request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from report.judgement import Judgement

# how a cell of a column of numbers begins; "2 and 3 runs" and "4 arms, 3 seeds" are sentences
NUMBER = re.compile(
    r"[\[(<+−-]*\s*[\d∞][\d.,]*(?![\d.,]| and|[^,]*, [\d.]+ [a-zA-Z])"
    r"|–$|not (?:reached|recorded|defined)"
)
SPECIAL = "\\`*_[]<>|#~&"  # characters that mean something in Markdown


@dataclass(frozen=True)
class Cell:
    """Text of a table's cell. kind: how it looks ("arm", "strong", a verdict)."""

    text: str
    kind: str = ""


Line = Sequence[str | Cell]


def arm_cell(arm: str) -> Cell:
    """First cell of an arm's row."""
    return Cell(arm, "arm")


def arm_line(arm: str, cells: Iterable[str]) -> Line:
    """An arm's row, all of whose other cells are plain text."""
    return [arm_cell(arm), *cells]


@dataclass(frozen=True)
class Table:
    """Titles and rows of equal length. A row whose first cell is an arm's belongs to that arm.

    caption: says what the numbers are; "" leaves it to the section's title.
    """

    columns: Sequence[str]
    rows: Sequence[Line]
    caption: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Of each column, whether all its cells are numbers: titles and cells then align right."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.columns)
        return [all(NUMBER.match(_text(cell)) for cell in cells) for cells in columns]


@dataclass(frozen=True)
class Section:
    """A heading, what to know, tables, and lines. folded: closed at first on the page."""

    id: str
    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    lines: Sequence[str] = ()
    folded: bool = False


# ---------------------------------------------------------------------------------------- Markdown


def markdown(judgement: Judgement, sections: Sequence[Section]) -> str:
    """report.md. sections: what stands below the headline."""
    parts = [f"# {escaped(judgement.study)}", f"**{escaped(judgement.headline)}**"]
    parts += [markdown_section(section) for section in sections]
    return "\n\n".join(parts) + "\n"


def markdown_section(section: Section) -> str:
    """Heading, text, tables and lines."""
    parts = [f"## {escaped(section.title)}"]
    parts += [escaped(section.text)] if section.text else []
    return "\n\n".join([*parts, markdown_body(section)]).rstrip()


def markdown_body(section: Section) -> str:
    """Tables and lines."""
    parts = [_table(table) for table in section.tables]
    parts += ["\n".join(f"- {escaped(line)}" for line in section.lines)] if section.lines else []
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    """In GitHub's form."""
    rows = [[escaped(_text(cell)) for cell in row] for row in table.rows]
    rule = ["---:" if numeric else "---" for numeric in table.numeric]
    lines = [map(escaped, table.columns), rule, *rows]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{escaped(table.caption)}:\n\n{grid}" if table.caption else grid


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    for sign in SPECIAL:
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _text(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell
