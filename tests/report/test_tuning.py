"""The page of a contest with an edge, a tie, a missing run, a late seed, and a shared machine."""

import json

import pytest

from record.contest import Ledger
from record.history import Entry, append
from report.judgement import judge
from report.page import page
from report.sources import read
from report.tables import sections
from tests.report.contest_folder import folder_of, write_contest
from tests.report.studies import FIVE, a_study, rows

FILE = '[contest]\nname = "demo"\nseeds = {}\n[[arm]]\nname = "cosine"\n[[arm]]\nname = "wsd"\n'


def planned(home, seeds, ended, before):
    entry = Entry(
        time="2026-01-02T03:04:05+00:00", commit="abc", dirty=False, sha256="",
        text=FILE.format(list(seeds)), settings={"cosine": "1", "wsd": "2"}, seeds={"cosine": seeds,
        "wsd": seeds}, runs=2 * len(seeds), ended=ended,
    )  # fmt: skip
    return [*before, append(home, entry, before)]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """(study, judgement, sections by id) of such a contest."""
    home = tmp_path_factory.mktemp("contest") / "demo"
    write_contest(home, {"cosine": 0.0, "wsd": 0.1}, steps=20, tuning=True, skip=[("wsd", 3)])
    file = home / "tuning.json"
    ledger = json.loads(file.read_text()) | {"tie_seeds": [102], "extend": 1, "rounds": 1}
    wsd = ledger["arms"]["wsd"]
    best = next(t for t in wsd["trials"] if t["setting"] == wsd["best"])
    second = wsd["trials"][0]
    for trial in (best, second):
        trial |= {"tied": True, "losses": [trial["loss"], trial["loss"]]}
        trial["runs"] = [*trial["runs"], "more"]
    best["round"] = 1
    wsd |= {"edges": ["optimizer.lr"], "runner_up": second["setting"], "runner_up_gap": 0.1}
    file.write_text(json.dumps(ledger))
    first = planned(home, (1, 2), {}, [])
    planned(home, (1, 2, 3), {"cosine": (1, 2), "wsd": (1, 2)}, first)
    shared = folder_of(home, "wsd", 1) / "record.json"
    record = json.loads(shared.read_text())
    record["launches"][-1]["at_end"]["other_runs"] = 1
    shared.write_text(json.dumps(record))
    study = read([str(home)])
    judgement = judge(study)
    return study, judgement, {s.id: s for s in sections(study, judgement, "report")}


def test_an_edge_stands_in_the_verdict_and_beside_the_setting(shown):
    _, judgement, found = shown
    (wsd,) = (row for row in judgement.rows if row.arm == "wsd")
    assert "best at the edge of the grid in optimizer.lr" in wsd.comparison.words
    (row,) = (row for row in found["tuning"].tables[0].rows if row[0].text == "wsd")
    assert row[3].text == "optimizer.lr"


def test_edges_of_both_grids_are_in_the_words():
    tuned = {"trials": [], "best": None, "best_loss": None, "default": {}, "default_loss": None,
             "gap": None}  # fmt: skip
    edges = {"base": ["optimizer.lr"], "good": ["optimizer.lr", "optimizer.beta"], "bad": []}
    ledger = Ledger.model_validate_json(
        json.dumps({"contest": "c", "method": "grid", "sampler": None, "trials_per_arm": 3,
                    "seeds": [101], "arms": {a: tuned | {"edges": e} for a, e in edges.items()}})
    )  # fmt: skip
    found = rows(a_study(FIVE, tuning=ledger))
    assert found["good"].comparison.words == (
        "better, best at the edge of the grid in optimizer.lr, optimizer.beta, optimizer.lr of base"
    )
    assert found["bad"].comparison.edges == ("optimizer.lr of base",)
    assert found["same"].comparison.words == (
        "undecided, best at the edge of the grid in optimizer.lr of base"
    )


def test_a_tie_and_a_round_stand_in_the_ledger(shown):
    _, _, found = shown
    lines = [line for line in found["ledger"].tables[0].rows if line[0].text == "wsd"]
    assert [(line[2], line[3], line[6]) for line in lines] == [
        ("0", "2", "runner-up, run with more seeds, untuned"),
        ("1", "2", "chosen, run with more seeds"),
        ("0", "1", "–"),
    ]


def test_a_missing_run_makes_the_verdict_provisional(shown):
    _, judgement, _ = shown
    assert judgement.provisional == "1 of 6 planned runs have not ended"
    assert judgement.headline.startswith("Provisional: 1 of 6 planned runs have not ended")


def test_a_seed_that_was_added_after_results_is_a_problem(shown):
    _, judgement, found = shown
    added = "2026-01-02 03:04 UTC: seed 3 added, after 4 results were there (seeds 1, 2)"
    assert added in judgement.problems
    assert found["plan"].lines[1] == added


def test_the_page_shows_all_of_them(shown):
    study, judgement, found = shown
    text = page(study, judgement, [*found.values()])
    for words in (
        "Provisional",
        "seed 3 added, after 4 results were there (seeds 1, 2)",
        "best at the edge of the grid in optimizer.lr",
        "run with more seeds",
        "planned, but not started",
        "1 other run on its machine",
    ):
        assert words in text
