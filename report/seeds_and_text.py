"""The section that shows the interval over seeds beside the one over seeds and text."""

from __future__ import annotations

from report.formats import interval, loss, signed
from report.judgement import Judgement
from report.leaderboard import Row
from report.sections import Cell, Line, Section, Table
from report.statistics import ALPHA, FIXED_TEXT
from report.text import BLOCKS


def seeds_and_text(judgement: Judgement) -> Section | None:
    """Both intervals of each tested arm; None where no arm was tested on held-out text."""
    tested = [row for row in judgement.rows if row.comparison and row.comparison.tested]
    known = [_line(row) for row in tested if row.comparison and row.comparison.over_text]
    reasons = [
        f"{row.arm}: {row.comparison.why_no_text}"
        for row in judgement.rows
        if row.comparison and row.comparison.why_no_text
    ]
    if not known and not reasons:
        return None
    random = any(row.comparison and row.comparison.random_text for row in tested)
    decides = "seeds and text" if random else "seeds"
    text = (
        "A difference over seeds holds for the text that it was measured on; over seeds and text, "
        "also for other text of the same kind. Standard errors and intervals are in nats per "
        f"token. The text is cut into {BLOCKS} blocks of neighbours, since these resemble each "
        "other; an error of 0 is an estimate that is not above zero. The interval over "
        f"{decides} decides (text, in the contest file)."
    )
    columns = (
        "arm",
        "difference",
        "95 % over seeds",
        "95 % over seeds and text",
        "error: seeds",
        "error: text",
    )
    caption = "Each arm against its baseline, over seeds and over seeds and text"
    tables = [Table(columns, known, caption)] if known else []
    return Section("text", "Seeds and text", text, tables, reasons)


def _line(row: Row) -> Line:
    """An arm's line."""
    c = row.comparison
    assert c is not None
    assert c.text is not None
    assert c.over_text is not None
    over_seeds = c.test._replace(text=FIXED_TEXT).interval(ALPHA)
    return [
        Cell(row.arm, "arm"),
        signed(c.difference),
        interval(*over_seeds, signed),
        interval(c.over_text.low, c.over_text.high, signed),
        loss(c.error),
        loss(c.text.error),
    ]
