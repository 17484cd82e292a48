"""A contest judged anew from its losses."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench import rejudge
from contest.file import read
from report.judgement import judge
from tests.jobs import ROOT

CONTEST = ROOT / "configs" / "contest" / "schedules_small.toml"
LOSSES = ROOT / "docs" / "results" / "schedules_small.csv"


@pytest.fixture(scope="module")
def judgement():
    return judge(rejudge.study(read(CONTEST), LOSSES))


def test_table_of_the_documentation_is_what_the_program_prints(judgement, monkeypatch):
    monkeypatch.chdir(ROOT)
    table = rejudge.document(read(CONTEST), judgement)
    page = (ROOT / "docs" / "results" / "schedulers.md").read_text()
    assert table.split("\n\n")[1] in page
    assert judgement.headline in " ".join(page.split())


def test_numbers_are_those_of_the_file(judgement):
    losses = rejudge.losses(Path(LOSSES), "report")
    rows = {row.arm: row for row in judgement.rows}
    gaps = {}
    for arm, rates in losses.items():
        (each,), (base,) = rates.values(), losses["cosine"].values()
        assert rows[arm].mean == pytest.approx(np.mean(list(each.values())))
        if arm != "cosine":
            gaps[arm] = np.subtract(list(each.values()), list(base.values()))
    own = {arm: gap.var(ddof=1) for arm, gap in gaps.items()}
    arm = "cosine_warm_restarts"
    others = np.mean([own[other] for other in own if other != arm])
    error = np.sqrt(max(own[arm], (own[arm] + others) / 2) / 3)
    p = 2 * stats.t.sf(gaps[arm].mean() / error, 4)
    c = rows[arm].comparison
    assert c.p == pytest.approx(p)
    assert (c.call, c.edges) == ("worse", ("optimizer.lr",))
