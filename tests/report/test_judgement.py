"""What a judgement asks for and takes from the contest."""

import json

import pytest

from report.judgement import judge
from report.run import ReportError
from report.sources import read
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
