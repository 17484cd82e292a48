"""Which ranks may an arm have? From intervals of all pairs of arms that hold together.

An arm's rank is one more than the number of arms that are truly better. If the 95 % intervals of
all pairwise differences hold together, then each rank lies between one more than the arms shown
better and the number of arms less those shown worse (Mogstad et al. 2024, section 2.2,
doi:10.1093/restud/rdad006); arms that none is shown better than may be the best.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from report.crossed import mean_test
from report.statistics import ALPHA, welch_t
from report.study import Study
from report.verdict import Comparison, Values


def ranks(
    study: Study, values: Mapping[str, Values], comparisons: Mapping[str, Comparison]
) -> dict[str, tuple[int, int]]:
    """Best and worst rank of each arm among those tested against one baseline, and of that."""
    families: dict[str, list[str]] = {}
    for arm in study.arms:
        base = study.baseline_of(arm)
        tested = arm == base or (arm in comparisons and comparisons[arm].tested)
        numbers = values[arm].values()
        if base and tested and len(numbers) > 1 and all(map(math.isfinite, numbers)):
            families.setdefault(base, []).append(arm)
    found: dict[str, tuple[int, int]] = {}
    for arms in families.values():
        found |= _of_family(arms, values) if len(arms) > 1 else {}
    return found


def _of_family(arms: list[str], values: Mapping[str, Values]) -> dict[str, tuple[int, int]]:
    """Ranks of arms that were all trained for the same length."""
    better, worse = dict.fromkeys(arms, 0), dict.fromkeys(arms, 0)  # arms shown to be so
    pairs = list(itertools.combinations(arms, 2))
    for a, b in pairs:
        mine, theirs = values[a], values[b]
        shared = mine.keys() & theirs.keys()  # the complete pairs, as in report/verdict.py
        test = (
            mean_test({pair: mine[pair] - theirs[pair] for pair in shared})
            if len(shared) > 1
            else welch_t([*mine.values()], [*theirs.values()])
        )
        if test and test.p * len(pairs) < ALPHA:  # None: equal differences have no spread
            first, second = (a, b) if test.difference < 0 else (b, a)
            better[second] += 1
            worse[first] += 1
    return {arm: (1 + better[arm], len(arms) - worse[arm]) for arm in arms}
