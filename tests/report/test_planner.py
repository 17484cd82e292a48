"""How many seeds: from the noise of all arms."""

import math

import numpy as np
import pytest

from report.judgement import judge
from tests.report.studies import BASE, FIVE, a_study


def test_planner_pools_over_arms():
    p = judge(a_study(FIVE), wanted=[0.01]).planner
    variances = [np.var(list(each.values()), ddof=1) for each in FIVE.values()]
    assert p.sigma == pytest.approx(math.sqrt(np.mean(variances)))
    gaps = [
        np.subtract(list(FIVE[a].values()), list(BASE.values())) for a in ("good", "bad", "same")
    ]
    assert p.sigma_paired == pytest.approx(math.sqrt(np.mean([np.var(g, ddof=1) for g in gaps])))
    assert set(p.needed) == {0.01}
    assert p.detectable[5][1] < p.detectable[5][0]  # pairs need fewer seeds here
