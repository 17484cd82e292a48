"""Which ranks may an arm have, which arms may be the best, and which pairs are equivalent?

An arm's rank is one more than the number of arms that are truly better. If no pair of arms is
falsely called better or worse, then each rank lies between one more than the arms shown better and
the number of arms less those shown worse (Mogstad et al., "Inference for Ranks", 2024,
doi:10.1093/restud/rdad006); an arm that none is shown better than may be the best. The pairs are
tested as the verdicts are, but all of them together, so that all ranks hold with 95 %. Verdicts by
the moderated t (from four arms on) count too, since it has room for them: an arm called worse, and
a baseline that is worse than an arm, is not the best. With Welch's t, or seeds crossed with data
seeds, there is no such room (docs/results/calibration.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from record.power import ALPHA, MODERATED_ARMS
from report.crossed import is_crossed, mean_test
from report.statistics import Test, TextPart, holm, moderated, welch_t
from report.study import Study
from report.text import over_text
from report.verdict import Comparison, Values

PairOfArms = tuple[str, str]


@dataclass(frozen=True)
class Ranking:
    """What the tests of all pairs of arms show.

    ranks: best and worst rank of each arm, among the arms that are compared with each other.
    equivalent: pairs, in the order of the study's arms.
    """

    ranks: dict[str, tuple[int, int]]
    equivalent: frozenset[PairOfArms]

    def all_equivalent(self, arms: Sequence[str]) -> bool:
        """Whether every two of some arms are."""
        pairs = itertools.combinations(arms, 2)
        return all({(a, b), (b, a)} & self.equivalent for a, b in pairs)


def ranking(
    study: Study,
    values: Mapping[str, Values],
    comparisons: Mapping[str, Comparison],
    smallest: float,
    texts: Mapping[frozenset[str], TextPart | str] | None = None,
) -> Ranking:
    """The ranks of all arms that were tested, and of those that they were tested against.

    values: `values_of` every arm. smallest: as in `verdict.adjusted`. texts: `text_parts`.
    """
    parts = (texts or {}) if study.random_text else None
    found = Ranking({}, frozenset())
    for arms in _families(study, comparisons):
        known = [arm for arm in arms if _is_known(values[arm])]
        if len(known) > 1:
            more = _of_family(known, values, smallest, parts)
            if len(known) >= MODERATED_ARMS:
                more = _without_beaten(more, comparisons)
            found = Ranking(found.ranks | more.ranks, found.equivalent | more.equivalent)
    return found


def _without_beaten(found: Ranking, comparisons: Mapping[str, Comparison]) -> Ranking:
    """The ranks, where no arm is first that a moderated t shows worse than another."""
    known = {arm: c for arm, c in comparisons.items() if c.method == "moderated t"}
    beaten = {arm for arm, c in known.items() if c.call == "worse"}
    beaten |= {c.baseline for c in known.values() if c.call == "better"}
    ranks = {
        arm: (max(first, 2) if arm in beaten else first, last)
        for arm, (first, last) in found.ranks.items()
    }
    return Ranking(ranks, found.equivalent)


def _is_known(values: Values) -> bool:
    """Whether the mean of an arm is finite and its noise is known."""
    return len(values) > 1 and all(map(math.isfinite, values.values()))


def _families(study: Study, comparisons: Mapping[str, Comparison]) -> list[list[str]]:
    """Arms that tests connect with each other, in the order of the study."""
    family = {arm: arm for arm in study.arms}  # its first arm stands for a family
    for arm, c in comparisons.items():
        if c.tested and c.baseline in family:
            old, new = family[arm], family[c.baseline]
            family = {a: new if first == old else first for a, first in family.items()}
    groups: dict[str, list[str]] = {}
    for arm, first in family.items():
        groups.setdefault(first, []).append(arm)
    return list(groups.values())


def _of_family(
    arms: Sequence[str],
    values: Mapping[str, Values],
    smallest: float,
    parts: Mapping[frozenset[str], TextPart | str] | None,
) -> Ranking:
    """Ranks of arms that may be compared with each other."""
    tests = _tests(arms, values)
    if parts is not None:  # for other texts too: a pair is not tested where the text is unknown
        known = {pair: parts.get(frozenset(pair)) for pair in tests}
        tests = {
            pair: over_text(tests[pair], part)
            for pair, part in known.items()
            if isinstance(part, TextPart)
        }
    better, worse = dict.fromkeys(arms, 0), dict.fromkeys(arms, 0)  # arms shown to be so
    adjusted = holm([test.p for test in tests.values()])
    for ((a, b), test), p in zip(tests.items(), adjusted.tolist(), strict=True):
        if p < ALPHA and test.difference:
            first, second = (a, b) if test.difference < 0 else (b, a)
            better[second] += 1
            worse[first] += 1
    equivalent = {pair for pair, test in tests.items() if smallest and test.within(smallest)}
    ranks = {arm: (1 + better[arm], len(arms) - worse[arm]) for arm in arms}
    return Ranking(ranks, frozenset(equivalent))


def _tests(arms: Sequence[str], values: Mapping[str, Values]) -> dict[PairOfArms, Test]:
    """The test of each pair, by the rule that decides the verdicts."""
    found: dict[PairOfArms, Test] = {}
    paired: dict[PairOfArms, int] = {}  # how many pairs of runs
    for a, b in itertools.combinations(arms, 2):
        mine, theirs = values[a], values[b]
        gaps = {pair: mine[pair] - theirs[pair] for pair in sorted(mine.keys() & theirs.keys())}
        is_paired = len(gaps) > 1
        test = mean_test(gaps) if is_paired else welch_t([*mine.values()], [*theirs.values()])
        if test is None:  # equal differences have no spread to test with
            continue
        found[a, b] = test
        if is_paired and not is_crossed(gaps):
            paired[a, b] = len(gaps)
    given = [found[pair] for pair in paired]
    return found | dict(
        zip(paired, moderated(given, list(paired.values()), len(arms)), strict=True)
    )
