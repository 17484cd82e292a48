"""report.md: the report without its figures, for a terminal, an issue or a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from report.judgement import Judgement
from report.sections import Cell, Section, Table

SPECIAL = "\\`*_[]<>|#"  # characters that mean something in Markdown


def markdown(judgement: Judgement, sections: Sequence[Section]) -> str:
    """The whole file. sections: what stands below the headline."""
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
