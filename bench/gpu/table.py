"""The rows of all parts as one page of Markdown."""

from __future__ import annotations

from typing import Any

from bench.gpu.part import Part, Row

SIGNS = {True: "yes", False: "**no**", None: "-"}


def page(machine: dict[str, Any], parts: dict[str, Part], titles: dict[str, str]) -> str:
    """The page: the machine, then the tables of each part that has rows.

    titles: of the parts, by name.
    """
    lines = ["# One GPU, one hour", "", *_facts(machine), ""]
    for name, part in parts.items():
        done, tables = part.content["done"], part.content["tables"]
        if not any(tables.values()):
            lines += [f"## {titles[name]}", "", "Not measured.", ""]
            continue
        seconds = sum(facts["seconds"] for facts in done.values())
        codes = sorted({facts["code"] for facts in done.values()})
        by = f"code {', '.join(codes)}" + (": rows differ" if len(codes) > 1 else "")
        lines += [f"## {titles[name]}", "", f"{seconds:.0f} s, {by}", ""]
        for title, rows in tables.items():
            lines += [*_markdown(title, rows), ""] if rows else []
    return "\n".join(lines)


def _facts(machine: dict[str, Any]) -> list[str]:
    return [f"- {name}: {_cell(value)}" for name, value in machine.items()]


def _markdown(title: str, rows: list[Row]) -> list[str]:
    """A table with the columns of all rows, in the order of their first appearance."""
    whole = [row for row in rows if "error" not in row]
    columns = list(dict.fromkeys(key for row in whole for key in row)) or ["name"]
    lines = []
    if whole:
        heads = [title, *columns[1:]]
        numeric = [any(_is_number(row.get(column)) for row in whole) for column in columns]
        lines = [_line(heads), _line(["---:" if right else "---" for right in numeric])]
        lines += [_line([_cell(row.get(column, "")) for column in columns]) for row in whole]
    failed = [row for row in rows if "error" in row]
    if failed:
        lines += ["", f"Failed ({title}):", ""]
        lines += [f"- {row['name']}: {_cell(row['error'])}" for row in failed]
    return lines


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    """A value as it is printed: four digits of a number."""
    if value is None or isinstance(value, bool):
        return SIGNS[value]
    if _is_number(value):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "/").replace("\n", " ")
