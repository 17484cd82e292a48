"""What a judgement asks for and takes from the contest; its sentence for the reader in a hurry."""

import json
from dataclasses import replace

import pytest

from report.judgement import headline, judge
from report.leaderboard import Row, row
from report.run import ReportError
from report.sources import read
from report.verdict import Comparison
from tests.report.contest_folder import write_contest
from tests.report.studies import BASE, FIVE, a_study, rows


def test_no_baseline_asks_with_the_arms_named():
    with pytest.raises(ReportError, match=r"give --baseline ARM, one of: base, good, bad, same"):
        judge(a_study(FIVE, baseline=None))
    with pytest.raises(ReportError, match=r"'bse' is no arm; give one of: base"):
        judge(a_study(FIVE, baseline="bse"))
    assert "one arm" in judge(a_study({"base": BASE}, baseline=None)).headline


def test_default_target_is_the_baselines_mean_and_a_given_one_wins():
    assert judge(a_study(FIVE)).target == pytest.approx(3.3)
    assert judge(a_study(FIVE, target=4.0)).target == 4.0
    assert rows(a_study(FIVE, target=4.4))["base"].to_target["steps_to_target"].median == 50


def test_tuning_ledger_and_edges_are_in_the_rows(tmp_path):
    home = write_contest(tmp_path / "demo", {"cosine": 0.0, "wsd": 0.1}, steps=20, tuning=True)
    ledger = json.loads((home / "tuning.json").read_text())
    ledger["arms"]["wsd"]["edges"] = ["optimizer.lr"]
    (home / "tuning.json").write_text(json.dumps(ledger))
    judgement = judge(read([str(home)]))
    tuned = next(r for r in judgement.rows if r.arm == "wsd").tuned
    assert (len(tuned.trials), tuned.best) == (3, {"optimizer.lr": 1e-3})
    assert tuned.gap == pytest.approx(0.1)
    assert set(judgement.sensitivity) == {"cosine", "wsd"}
    assert any("wsd: its best setting lies at the edge" in p for p in judgement.problems)


# ---------------------------------------------------------------------------------------- headline


def lines(**arms):
    """Rows with nothing but a name and a comparison: {arm: (call, difference)}."""
    empty = row(a_study(FIVE), "base", {(1, 1): 3.0, (2, 2): 3.1}, None, None)
    found = [replace(empty, arm="base")]
    for arm, (call, difference) in arms.items():
        c = Comparison("base", call, difference=difference)
        found.append(replace(empty, arm=arm, comparison=c))
    return found


def test_headline_says_every_call_in_one_sentence():
    rows: list[Row] = lines(
        a=("better", -0.01234),
        b=("better", -0.005),
        c=("worse", 0.25),
        d=("undecided", 0.001),
        e=("diverged", None),
        f=("no verdict", None),
        g=("refused", None),
    )
    assert headline("base", rows, "final_val_loss") == (
        "Against base, by final val loss: a (−0.0123) and b (−0.0050) are better; "
        "c (+0.2500) is worse; d is undecided; e diverged; "
        "f has no verdict yet; g cannot be compared."
    )


def test_headline_speaks_of_several_arms_and_counts_those_beyond_six():
    rows = lines(**{f"arm{i}": ("undecided", 0.0) for i in range(7)})
    assert headline("base", rows, "avg_loss") == (
        "Against base, by avg loss: arm0, arm1, arm2, arm3, arm4, arm5 and 1 more are undecided."
    )
    six = headline("base", rows[:-1], "avg_loss")
    assert "arm3, arm4 and arm5 are" in six
    several = {
        "worse": "are worse",
        "diverged": "diverged",
        "no verdict": "have no verdict yet",
        "refused": "cannot be compared",
    }
    for call, words in several.items():
        assert headline("base", lines(x=(call, None), y=(call, None)), "avg_loss") == (
            f"Against base, by avg loss: x and y {words}."
        )


def test_headline_without_anything_to_compare():
    (only,) = judge(a_study({"base": BASE}, baseline=None)).rows
    end = "nothing to compare it with"
    assert headline(None, [only], "final_val_loss") == (
        f"No verdict: one arm, {end}: final val loss 3.3000, n = 3."
    )
    assert headline("base", [only], "final_val_loss").startswith(f"No verdict: one arm, {end}: ")
    assert headline(None, [replace(only, mean=None)], "avg_loss") == f"No verdict: one arm, {end}."
    assert headline(None, [], "avg_loss") == f"No verdict: one arm, {end}."
    assert headline(None, lines(x=("better", -1)), "avg_loss").startswith("No verdict: one arm")
    assert headline("base", lines(x=("diverged", None)), "avg_loss") == (
        "Against base, by avg loss: x diverged."
    )
