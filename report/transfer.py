"""Do two contests rank the arms that they share alike? Kendall's tau of the arms' mean losses.

A contest is a folder; `FOLDER@1221` is its arms at 1,221 updates, where they have several lengths.
The interval resamples the seeds of each contest, all arms together, so that arms keep their pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from report.formats import counted, ranks
from report.leaderboard import Row
from report.published import published
from report.run import ReportError
from report.sections import Section, Table, arm_line
from report.statistics import Floats

RESAMPLES = 1_000
FEWEST_ARMS = 3


@dataclass(frozen=True)
class Transfer:
    """tau: -1..1 (tau-b; a diverged arm's loss is infinite). low, high: 95 %, None with one seed.

    decided: pairs of arms whose ranks do not overlap in either contest; agreed: in the same order.
    """

    arms: tuple[str, ...]
    tau: float
    low: float | None
    high: float | None
    seeds: tuple[int, int]
    decided: int
    agreed: int


def compare(first: Mapping[str, Row], second: Mapping[str, Row]) -> Transfer:
    """first, second: rows of two contests, by arm without its length.

    Raises:
        ReportError: they share fewer than three arms that have runs.
    """
    arms = tuple(arm for arm in first if arm in second and first[arm].n and second[arm].n)
    if len(arms) < FEWEST_ARMS:
        raise ReportError(f"the contests share {counted(len(arms), 'arm')} that ran, not three")
    a, b = (_losses([rows[arm] for arm in arms]) for rows in (first, second))

    def tau(i: NDArray[np.int_], j: NDArray[np.int_]) -> float:
        return float(stats.kendalltau(a[:, i].mean(axis=1), b[:, j].mean(axis=1)).statistic)

    seeds = [np.arange(losses.shape[1]) for losses in (a, b)]
    low = high = None
    if min(map(len, seeds)) > 1:
        found = stats.bootstrap(
            seeds,
            tau,
            n_resamples=RESAMPLES,
            method="percentile",
            vectorized=False,
            rng=np.random.default_rng(0),
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    orders = [_order(first, arms), _order(second, arms)]
    both = np.triu((orders[0] != 0) & (orders[1] != 0))
    same = both & (orders[0] == orders[1])
    counts = len(seeds[0]), len(seeds[1])
    return Transfer(arms, tau(*seeds), low, high, counts, int(both.sum()), int(same.sum()))


def _losses(rows: list[Row]) -> Floats:
    """(arms, seeds): of the seeds that all arms have.

    Raises:
        ReportError: there is none.
    """
    pairs = sorted(set.intersection(*(set(row.values) for row in rows)))
    if not pairs:
        raise ReportError("no seed has ended in all arms that the contests share")
    return np.array([[row.values[pair] for pair in pairs] for row in rows])


def _order(rows: Mapping[str, Row], arms: tuple[str, ...]) -> Floats:
    """(arms, arms): -1 where the ranks of the first arm are all better, 1 all worse, else 0."""
    places = [rows[arm].ranks or (1, len(rows)) for arm in arms]
    best, worst = np.array(places).T
    return (best[:, None] > worst).astype(float) - (worst[:, None] < best)


def section(first: str, second: str) -> Section:
    """The agreement in a sentence, and the ranks of the shared arms, in the order of the first."""
    names = [Path(path).name for path in (first, second)]
    rows = [_rows(path) for path in (first, second)]
    found = compare(*rows)
    ends = "" if found.low is None else f" (95 % over seeds: {found.low:.2f} to {found.high:.2f})"
    said = (
        f"{names[0]} and {names[1]} share {len(found.arms)} arms; Kendall's tau of their mean "
        f"losses is {found.tau:.2f}{ends}, with {found.seeds[0]} and {found.seeds[1]} seeds"
    )
    pairs = len(found.arms) * (len(found.arms) - 1) // 2
    both = (
        f"of {counted(pairs, 'pair')} of arms both contests decide {found.decided}, "
        f"{found.agreed} of them in the same order"
    )
    lines = [arm_line(arm, [ranks(each[arm].ranks) for each in rows]) for arm in found.arms]
    table = Table(("arm", *(f"rank in {name}" for name in names)), lines)
    return Section("transfer", "Transfer", "", [table], [said, both])


def _rows(path: str) -> dict[str, Row]:
    """A contest's rows by arm, at the length asked for, best mean first."""
    folder, _, steps = path.partition("@")
    study, judgement = published(folder)
    own = {row.arm: study.lengths.get(row.arm, (row.arm, None)) for row in judgement.rows}
    chosen = [row for row in judgement.rows if not steps or str(own[row.arm][1]) == steps]
    found = {own[row.arm][0]: row for row in chosen}
    lengths = sorted({n for _, n in study.lengths.values() if n})
    if (lengths and not steps) or not found:
        known = ", ".join(f"{folder}@{n}" for n in lengths) or folder
        raise ReportError(f"{path}: give one of {known}")
    return found
