"""Pages of results: every marked table is what the published contests say."""

import csv
import re
from pathlib import Path

import pytest

from report.fill import BEGIN, END, filled, main
from report.run import ReportError
from tests.jobs import ROOT

PAGES = [page for page in (ROOT / "docs/results").glob("*.md") if BEGIN in page.read_text()]
CONTESTS = ROOT / "configs/contest"
SMALL = "docs/results/schedules_small"


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    monkeypatch.chdir(ROOT)


def mark(words, text="old\n"):
    return f"{BEGIN}{words} -->\n{text}{END}\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_numbers_of_a_page_are_those_of_its_contests(page):
    text = page.read_text()
    assert filled(text) == text, f"python -m report.fill docs/results/{page.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_contests_of_a_page_are_shipped(page):
    """A folder that is spelled wrong would be a contest that is not run yet, for ever."""
    folders = re.findall(
        r"docs/results/(\w+)(?=[ @])", " ".join(re.findall(f"{BEGIN}.*", page.read_text()))
    )
    assert {f"{name}.toml" for name in folders} <= {p.name for p in CONTESTS.iterdir()}


def test_page_that_is_no_text_is_one_line(tmp_path, capsys):
    (tmp_path / "page.md").write_bytes(b"\xff")
    assert main([str(tmp_path / "page.md")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_picture_of_a_page_is_there():
    text = filled(mark(f"{SMALL} picture"))
    (_, path) = text.splitlines()[1][:-1].rsplit("](", 1)
    assert (ROOT / "docs/results" / path).exists()


def test_only_what_is_marked_is_written(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"# Mine\n\n{mark(f'{SMALL} headline')}\nold\n")
    assert main([str(page)]) == 0
    text = page.read_text()
    assert text.startswith(f"# Mine\n\n{BEGIN}{SMALL} headline -->\n> No arm is shown better")
    assert text.endswith(f"{END}\n\nold\n")
    assert main([str(page)]) == 0
    assert capsys.readouterr().out == f"{page}: filled\n{page}: as it was\n"


@pytest.mark.parametrize(
    "words", ["docs/results/nowhere leaderboard", f"transfer {SMALL} docs/results/nowhere@1221"]
)
def test_contest_that_has_not_run_says_how_to_run_it(words):
    assert "Not run yet: `python -m contest configs/contest/nowhere.toml`." in filled(mark(words))


def test_choice_of_a_contest_has_its_scale_its_answer_and_its_power():
    text = filled(mark(f"choices {SMALL} docs/results/nowhere"))
    _, _, row, missing, _, cost = text.splitlines()[1:-1]
    assert "1.85 M parameters, 0.128 M tokens, 0.069 for each parameter" in row
    assert "| No arm is shown better than cosine in final val loss." in row
    assert "10 arms, 3 seeds; 0.0328 nats are shown with 80 % power" in row
    assert missing == "| nowhere | not run yet | not run yet | not run yet | not run yet |"
    rows = list(csv.DictReader(Path(SMALL, "results.csv").read_text().splitlines()))
    tokens = sum(float(row["tokens"]) for row in rows) / 1e6
    spent = f"{len(rows)} runs, {tokens:.3g} million tokens"
    assert cost == f"- Cost of all, tuning included, a branch with its trunk: {spent}"


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (mark(f"{SMALL} leaderbord"), "has no section 'leaderbord'; it has answer, leaderboard"),
        (f"{BEGIN}{SMALL} headline -->\n", "has no line '<!-- end of report -->' after it"),
        (mark(f"{SMALL} headline").replace(END, "") * 2, "has no line"),
        (mark("transfer"), "transfer takes two contests"),
        (mark(""), "names nothing; give a folder and sections, or transfer"),
        (mark(f"'{SMALL} headline"), "names nothing; give a folder"),
    ],
)
def test_mark_that_cannot_be_filled_is_one_line(page, words, tmp_path, capsys):
    with pytest.raises(ReportError, match=words):
        filled(page)
    (tmp_path / "page.md").write_text(page)
    assert main([str(tmp_path / "page.md")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'page.md'}: ")
    assert said.count("\n") == 1
    assert (tmp_path / "page.md").read_text() == page
