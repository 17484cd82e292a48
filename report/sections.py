"""What a report is made of, whichever way it is written: sections of text, tables and lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
