"""How a contest ends on the terminal."""

from contest.conclusion import conclude
from tests.report.contest_folder import write_contest


def test_a_contest_ends_with_its_settings_and_the_first_sentence_of_its_report(tmp_path, capsys):
    home = write_contest(
        tmp_path / "demo", {"cosine": 0.0, "wsd": 0.02}, seeds=(1, 2), steps=20, tuning=True
    )
    conclude(home)
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[:2] == [
        "cosine: optimizer.lr 0.001 is the best of 3 trials",
        "wsd: optimizer.lr 0.001 is the best of 3 trials",
    ]
    assert lines[2] in (home / "report.md").read_text()
    assert "wsd" in lines[2]
    assert str(home / "report.html") in lines
    assert said.err == ""


def test_an_edge_is_told_and_a_report_that_cannot_be_made_leaves_one_line(tmp_path, capsys):
    home = write_contest(tmp_path / "demo", {"cosine": 0.0}, seeds=(1,), steps=20, tuning=True)
    path = home / "tuning.json"
    path.write_text(path.read_text().replace('"edges": []', '"edges": ["optimizer.lr"]'))
    (home / "plan.json").write_text("{}")
    conclude(home)
    said = capsys.readouterr()
    edge = "cosine: optimizer.lr 0.001 is the best of 3 trials, at the edge of what was tried in "
    assert said.out == f"{edge}optimizer.lr\n"
    (line,) = said.err.splitlines()
    assert line.startswith("no report: error: ")
    assert line.endswith(f"try again: python -m report {home}")
