"""The verdict on each arm: better, worse, equivalent, undecided, or why there is none.

An arm is compared with the baseline by a paired t-test on the seeds that both have, if there are at
least two, else by Welch's. From four arms on, the variances of paired tests borrow from each other
(moderated t), and each arm's own paired t counts beside it, with a tenth of the level. The p values
are adjusted by Holm over all arms tested; below ALPHA the sign of the difference decides.
docs/report.md says what each number means, docs/results/calibration.md why this rule decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from record.power import ALPHA
from report.comparable import cautions, refusal
from report.crossed import grid, is_crossed, mean_test
from report.run import Pair
from report.seconds import is_time
from report.statistics import OwnSpread, Test, TextPart, bca, holm, moderated, welch_t
from report.study import Study
from report.text import over_text

Values = dict[Pair, float]  # the metric of each run that has ended, by its seeds
Call = Literal["better", "worse", "equivalent", "undecided", "no verdict", "refused", "diverged"]


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline. difference = arm - baseline: negative is better."""

    baseline: str
    call: Call
    why: str = ""  # nothing was tested
    method: Literal["paired t", "moderated t", "two-way t", "Welch"] | None = None
    differences: Values = field(default_factory=dict)  # of the pairs
    difference: float | None = None
    low: float | None = None  # 95 % t interval
    high: float | None = None
    joint_low: float | None = None  # of 95 % intervals of all arms together, as the call has it
    joint_high: float | None = None
    bca_low: float | None = None  # 95 % BCa bootstrap
    bca_high: float | None = None
    error: float | None = None  # standard error of the difference, and the degrees of freedom
    df: float | None = None
    own: OwnSpread | None = None  # a second way to be shown, as in Test
    p: float | None = None
    p_holm: float | None = None
    text: TextPart | None = None  # what the text adds to the error
    why_no_text: str = ""  # why that is not known
    random_text: bool = False  # whether it counts: the verdict is for other texts too
    over_text: Test | None = None  # the test over seeds and text
    # tuned keys whose best value lies at the edge of the grid; of the baseline: "key of baseline"
    edges: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The call, the reason where there is one, and the edges of the grid."""
        said = f"{self.call}: {self.why}" if self.why else self.call
        edges = f"best at the edge of the grid in {', '.join(self.edges)}"
        return f"{said}, {edges}" if self.edges and self.tested else said

    @property
    def tested(self) -> bool:
        """Whether a test was made."""
        return self.p is not None

    @property
    def test(self) -> Test:
        """The test that was made.

        Raises:
            ValueError: none was.
        """
        numbers = (self.difference, self.low, self.high, self.p, self.error, self.df)
        known = [number for number in numbers if number is not None]
        if len(known) < len(numbers):
            raise ValueError(f"{self.words}: no test was made")
        difference, low, high, p, error, df = known
        test = Test(difference, low, high, p, error, df, self.own)
        return test._replace(text=self.text) if self.random_text and self.text else test


def values_of(study: Study, arm: str, metric: str, censor_diverged: bool) -> Values:
    """The metric of each reporting run that has ended.

    metric: one of METRICS, in its own unit. A diverged run counts as +inf, or is left out if
    `censor_diverged`.
    """
    found: Values = {}
    for run in study.of(arm):
        if run.shared and is_time(metric):
            continue  # its seconds are not its own
        value = run.summary.get(metric)
        if run.diverged:
            if not censor_diverged:
                found[run.pair] = math.inf
        elif run.status == "finished" and value is not None and math.isfinite(value):
            found[run.pair] = float(value)
    return found


def compare(
    study: Study,
    values: Mapping[str, Values],
    smallest: float = 0.0,
    texts: Mapping[frozenset[str], TextPart | str] | None = None,
) -> dict[str, Comparison]:
    """Every arm but the baseline against its baseline, p values adjusted over all of them.

    values: `values_of` every arm of the study. smallest: see `adjusted`. texts: `text_parts`.
    """
    found = {arm: _against_baseline(study, arm, values) for arm in study.arms}
    known = {arm: _with_edges(study, arm, comparison) for arm, comparison in found.items()}
    told = {
        arm: _with_text(study, c, (texts or {}).get(frozenset((arm, c.baseline))))
        for arm, c in known.items()
        if c
    }
    return adjusted(told, smallest)


def _with_text(study: Study, c: Comparison, part: TextPart | str | None) -> Comparison:
    """The comparison with what the text adds; no verdict if that should count and is not known."""
    if part is None or not c.tested:
        return c
    if isinstance(part, TextPart):
        return replace(c, text=part, random_text=study.random_text)
    if not study.random_text:
        return replace(c, why_no_text=part)
    why = f"for other texts too, as the contest asks: {part}"
    return replace(c, call="no verdict", why=why, why_no_text=part, p=None)


def _with_edges(study: Study, arm: str, comparison: Comparison | None) -> Comparison | None:
    """The comparison with the edges of its arm and of its baseline."""
    if comparison is None or study.tuning is None:
        return comparison
    mine, theirs = (
        tuned.edges if (tuned := study.tuning.arms.get(study.without_length(name))) else ()
        for name in (arm, comparison.baseline)
    )
    return replace(
        comparison, edges=(*mine, *(f"{key} of {comparison.baseline}" for key in theirs))
    )


def _against_baseline(study: Study, arm: str, values: Mapping[str, Values]) -> Comparison | None:
    """One arm, its p value not yet adjusted; None for the baseline itself."""
    base = study.baseline_of(arm)
    if base == arm or study.baseline is None:
        return None
    if base is None:
        why = f"{study.baseline} was not trained for the same number of updates"
        return Comparison(study.baseline, "refused", why)
    notes = cautions(study, arm, base)
    if reason := refusal(study, arm, base):
        return Comparison(base, "refused", reason, notes=notes)
    mine, theirs = values[arm], values[base]
    if untestable := _untestable(mine, theirs, base):
        call, why = untestable
        gaps = {pair: gap for pair, gap in _differences(mine, theirs).items() if math.isfinite(gap)}
        return Comparison(base, call, why, differences=gaps, notes=notes)
    return tested(base, mine, theirs, notes)


def _untestable(mine: Values, theirs: Values, base: str) -> tuple[Call, str] | None:
    """Why two arms cannot be tested, as a call and a reason; None if they can."""
    if lost := sum(map(math.isinf, theirs.values())):
        return "no verdict", f"{lost} of {len(theirs)} runs of the baseline {base} diverged"
    if lost := sum(map(math.isinf, mine.values())):
        return "diverged", f"{lost} of {len(mine)} runs, so its mean is infinite"
    if not mine or not theirs:
        return "no verdict", f"no finished run of {base if mine else 'this arm'}"
    if len(mine) == 1 or len(theirs) == 1:
        return "no verdict", "with one seed, no difference can be told from noise"
    return None


def _differences(mine: Values, theirs: Values) -> Values:
    """Arm minus baseline for each pair of equal seeds; NaN if both are infinite."""
    return {pair: mine[pair] - theirs[pair] for pair in sorted(mine.keys() & theirs.keys())}


def tested(base: str, mine: Values, theirs: Values, notes: tuple[str, ...]) -> Comparison:
    """Paired t on the complete pairs, Welch's t below two of them; the BCa bootstrap beside it.

    mine, theirs: at least two finite values each. The call is still open: see `adjusted`.
    """
    gaps = _differences(mine, theirs)
    paired = len(gaps) > 1
    sides = [list(gaps.values())] if paired else [list(mine.values()), list(theirs.values())]
    notes = (*notes, *_notes_on_seeds(gaps), *_notes_on_pairs(mine, theirs, gaps))
    test = mean_test(gaps) if paired else welch_t(*sides)
    if test is None:
        why = "all differences are equal, so that there is no spread to test them with"
        return Comparison(base, "no verdict", why, differences=gaps, notes=notes)
    crossed = paired and is_crossed(gaps)
    bootstrap = None if crossed else bca(sides)
    return Comparison(
        baseline=base,
        call="undecided",
        method=("two-way t" if crossed else "paired t") if paired else "Welch",
        differences=gaps,
        difference=test.difference,
        low=test.low,
        high=test.high,
        bca_low=bootstrap and bootstrap.low,
        bca_high=bootstrap and bootstrap.high,
        error=test.error,
        df=test.df,
        p=test.p,
        notes=notes,
    )


def _notes_on_seeds(gaps: Values) -> list[str]:
    """What pairs that share a seed mean for the verdict."""
    if len(gaps) < 2:
        return []
    if is_crossed(gaps):
        seeds, data = grid(gaps)
        size = f"{len(seeds)} seeds x {len(data)} data seeds"
        lost = len(gaps) - len(seeds) * len(data)
        used = f"; {lost} pairs outside this table are left out" if lost else ""
        return [f"{size}, crossed: runs that share one are not independent{used}"]
    for number, what in enumerate(("initial weights", "data, in one order")):
        if len({pair[number] for pair in gaps}) == 1:
            return [f"all runs have the same {what}: the verdict is for these"]
    return []


def _notes_on_pairs(mine: Values, theirs: Values, gaps: Values) -> list[str]:
    """Which runs count, where some have no pair, and whether the pairs differ at all."""
    runs = f"{len(mine)} and {len(theirs)} runs"
    if len(gaps) < 2:
        return [f"{runs}, pairs: {len(gaps)}: compared unpaired"]
    notes = []
    if mine.keys() != theirs.keys():
        notes.append(f"{runs}, {len(gaps)} complete pairs: only these are compared")
    if not any(gaps.values()):
        notes.append("all pairs are equal to the last bit: the same computation")
    return notes


def adjusted(comparisons: Mapping[str, Comparison], smallest: float) -> dict[str, Comparison]:
    """The rule that decides: moderated or own variances, Holm over all arms tested, the calls.

    smallest: in the metric's unit; a difference that is surely within it is equivalent. 0: none is.
    """
    tests = _moderated({arm: c for arm, c in comparisons.items() if c.p is not None})
    tests = {arm: _over_text(c) for arm, c in tests.items()}
    found = {**comparisons, **tests}
    p_values = [c.p for c in tests.values() if c.p is not None]
    for (arm, c), p in zip(tests.items(), holm(p_values).tolist(), strict=True):
        call = _call(p, c.difference)
        within = smallest > 0 and c.test.within(smallest)
        if within and call == "undecided":
            call = "equivalent"
        elif within:
            c = replace(c, notes=(*c.notes, f"the difference is surely smaller than {smallest:g}"))
        low, high = c.test.interval(ALPHA / len(tests))
        if call == "better" and high > 0:  # by a later step of Holm, which bounds no further
            high = 0.0
        elif call == "worse" and low < 0:
            low = 0.0
        found[arm] = replace(c, p_holm=p, call=call, joint_low=low, joint_high=high)
    return found


def _moderated(tests: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """The paired t-tests with variances that borrow from each other; all others as they are."""
    paired = {arm: c for arm, c in tests.items() if c.method == "paired t"}
    counts = [len(c.differences) for c in paired.values()]
    given = [c.test for c in paired.values()]
    found = dict(tests)
    for arm, old, new in zip(paired, given, moderated(given, counts, len(paired) + 1), strict=True):
        if new is not old:
            numbers = {name: x for name, x in new._asdict().items() if name != "text"}
            found[arm] = replace(tests[arm], **numbers, method="moderated t")
    return found


def _over_text(c: Comparison) -> Comparison:
    """A tested comparison with its test over seeds and text, which counts if the text is random."""
    if c.text is None:
        return c
    wide = over_text(c.test, c.text)
    c = replace(c, over_text=wide)
    return replace(c, low=wide.low, high=wide.high, p=wide.p) if c.random_text else c


def _call(p: float, difference: float | None) -> Call:
    """better or worse below ALPHA, by the sign of the difference; else undecided."""
    if p >= ALPHA or not difference:
        return "undecided"
    return "better" if difference < 0 else "worse"
