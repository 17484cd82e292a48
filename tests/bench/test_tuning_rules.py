"""Further trials at an edge, and ties, choose the better setting as often as a grid, or more."""

import numpy as np
import pytest

from bench.tuning_rules import Rule, draw, regrets

DRAWN = draw(75, 0.5) + draw(75, 1.0)  # contests of four arms


@pytest.mark.parametrize(
    ("rule", "than"),
    [
        (Rule(1, 1), Rule(1)),
        (Rule(1, 1), Rule(1, rates=4)),  # as many runs
        (Rule(1, 0, 1), Rule(1)),
        (Rule(2, 1, 1), Rule(2, 1)),
    ],
)
def test_a_rule_chooses_the_better_setting_at_least_as_often(rule, than):
    mine, _ = regrets(DRAWN, rule)
    theirs, _ = regrets(DRAWN, than)
    assert np.sum(mine < theirs) >= np.sum(mine > theirs)
    assert mine.mean() <= theirs.mean()


def test_rules_see_the_same_runs():
    assert np.array_equal(regrets(DRAWN[:5], Rule(1))[0], regrets(DRAWN[:5], Rule(1))[0])
    assert regrets(DRAWN[:5], Rule(2))[1] == 6
