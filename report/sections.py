"""What a report is made of: sections of text, tables and lines; and report.md, which prints them.

report.md is the report without its figures, for a terminal, an issue or a pull request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from report.judgement import Judgement

SPECIAL = "\\`*_[]<>|#"  # characters that mean something in Markdown


@dataclass(frozen=True)
class Cell:
    """Text of a table's cell. kind: how it looks ("arm", "strong", a verdict)."""

    text: str
    kind: str = ""


Line = Sequence[str | Cell]


@dataclass(frozen=True)
class Table:
    """Titles and rows of equal length. A row whose first cell is an arm's belongs to that arm."""

    columns: Sequence[str]
    rows: Sequence[Line]


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
    parts += [_table(table) for table in section.tables]
    parts += ["\n".join(f"- {escaped(line)}" for line in section.lines)] if section.lines else []
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    """In GitHub's form."""
    rows = [[escaped(_text(cell)) for cell in row] for row in table.rows]
    lines = [map(escaped, table.columns), ["---"] * len(table.columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    for sign in SPECIAL:
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _text(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell
