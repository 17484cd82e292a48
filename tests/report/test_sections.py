"""Tables: which columns are numbers, and how Markdown shows them."""

import io

import pytest
from rich.console import Console
from rich.markdown import Markdown

from report.sections import Cell, Section, Table, escaped, markdown_section


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (["2.3692", "–", "∞"], True),
        (["[−0.0541, +0.0089]", "–"], True),
        (["< 0.0001", "0.0496"], True),
        (["1.20 x [1.1, 1.3]", "not reached", "not recorded"], True),
        (["60 to 70 in 2 of 3 runs, else not reached", "80 (60 to 90)"], True),
        ([Cell("2.37", "strong"), "2 of 3"], True),
        (["lr = 0.001", "–"], False),
        (["not finished: 1 of 4 runs", "–"], False),
        (["2 and 3 runs, 2 complete pairs: only these are compared", "–"], False),
        (["12 and 13 runs", "–"], False),
        (["4 arms, 3 seeds", "29 arms, 5 seeds"], False),
        (["better", "undecided"], False),
        ([Cell("wsd", "arm"), Cell("cosine", "arm")], False),
    ],
)
def test_a_column_is_numeric_if_all_its_cells_are_numbers(cells, numeric):
    assert Table(("x",), [[cell] for cell in cells]).numeric == [numeric]


def test_markdown_aligns_numbers_right_and_has_the_caption():
    table = Table(("arm", "loss"), [[Cell("a|b", "arm"), "2.5"]], "All arms")
    text = markdown_section(Section("x", "Title", "What.", [table]))
    assert text == (
        "## Title\n\nWhat.\n\nAll arms:\n\n| arm | loss |\n| --- | ---: |\n| a\\|b | 2.5 |"
    )


@pytest.mark.parametrize(
    "text",
    ["*a* _b_ [c](d) `e` <f> |g| \\h", "# no heading", "a ~~b~~ c", "a &lt; b", "AT&T"],
)
def test_escaped_text_is_shown_as_it_is(text):
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(Markdown(escaped(text)))
    assert console.file.getvalue().strip() == text
