"""The tables of a report: a judgement as sections, which report.md and report.html both print."""

from __future__ import annotations

from collections.abc import Iterable

from report.formats import (
    NONE,
    axis_words,
    interval,
    loss,
    metric_words,
    probability,
    ranged,
    short,
    signed,
)
from report.judgement import Judgement
from report.leaderboard import COSTS, SCORES, Row
from report.provenance import plan_history, provenance, runs_table
from report.sections import Cell, Line, Section, Table
from report.speedups import AXES
from report.statistics import RESAMPLES
from report.study import Study
from report.tuning import ledger, tuning
from report.variance import variances
from report.verdict import Comparison

SHOWN_PROBLEMS = 200  # lines; more are counted, and those of runs are in results.csv


def sections(study: Study, judgement: Judgement, command: str) -> list[Section]:
    """Everything but the headline and the figures, in the order of reading.

    command: what the user typed, so that the report can be made again.
    """
    found = [
        _leaderboard(judgement),
        _problems(judgement),
        _comparisons(judgement),
        _speedups(judgement),
        _target(judgement),
        variances(judgement),
        _planner(judgement),
        tuning(study, judgement),
        _costs(judgement),
        _scores(judgement),
        ledger(study),
        plan_history(study),
        runs_table(study),
        provenance(study, command),
    ]
    return [section for section in found if section is not None]


def _leaderboard(judgement: Judgement) -> Section:
    columns = (
        "arm",
        "verdict",
        metric_words(judgement.metric),
        "95 %",
        "std",
        "n",
        "difference",
        "95 % of it",
        "p (Holm)",
        "speed-up: tokens",
        "speed-up: seconds",
        "lr factor: mean",
        "lr factor: last",
    )
    text = (
        "Arms are ordered by their means, but the order is no verdict: only better and worse are, "
        "at p < 0.05 after Holm's correction over the arms. A difference below zero is better. std "
        "is taken over an arm's own seeds."
    )
    rows = [_leaderboard_row(row) for row in judgement.rows]
    return Section("leaderboard", "Leaderboard", text, [Table(columns, rows)])


def _leaderboard_row(row: Row) -> Line:
    c = row.comparison
    return [
        _arm(row),
        _call(row),
        Cell(loss(row.mean), "strong"),
        interval(row.low, row.high, loss),
        loss(row.std),
        str(row.n) if row.n == row.planned else f"{row.n} of {row.planned}",
        signed(c.difference) if c else NONE,
        interval(c.low, c.high, signed) if c else NONE,
        probability(c.p_holm) if c else NONE,
        row.speedups["tokens"].words if "tokens" in row.speedups else NONE,
        row.speedups["seconds"].words if "seconds" in row.speedups else NONE,
        short(row.mean_lr_factor),
        short(row.last_lr_factor),
    ]


def _arm(row: Row) -> Cell:
    """First cell of an arm's row."""
    return Cell(row.arm, "arm")


def _arm_line(row: Row, cells: Iterable[str]) -> Line:
    """An arm's row, all of whose other cells are plain text."""
    return [_arm(row), *cells]


def _call(row: Row) -> Cell:
    """The verdict in words."""
    if row.comparison is None:
        return Cell("baseline" if row.is_baseline else "no verdict: one arm", "baseline")
    return Cell(row.comparison.words, row.comparison.call.replace(" ", "-"))


def _problems(judgement: Judgement) -> Section | None:
    """What is wrong with the study and its runs."""
    count = len(judgement.problems)
    if not count:
        return None
    lines = judgement.problems[:SHOWN_PROBLEMS]
    if count > SHOWN_PROBLEMS:
        more = count - SHOWN_PROBLEMS
        lines = [*lines, f"... and {more} more; those of runs are in results.csv"]
    text = "Everything that was left out or looks wrong has a line here."
    return Section("problems", f"Problems ({count})", text, lines=lines)


def _comparisons(judgement: Judgement) -> Section | None:
    """Each test in full."""
    rows = [_comparison_row(row, row.comparison) for row in judgement.rows if row.comparison]
    if not rows:
        return None
    columns = (
        "arm",
        "verdict",
        "difference",
        "95 % t",
        "95 % BCa",
        "p",
        "p (Holm)",
        "method",
        "pairs",
        "notes",
    )
    text = (
        "Student's t-test on the complete pairs of equal (seed, data_seed); Welch's t-test below "
        f"two of them. The BCa bootstrap ({RESAMPLES:,} resamples) is there to compare and decides "
        "nothing: with few seeds its interval is too narrow."
    )
    return Section("comparisons", "Comparisons", text, [Table(columns, rows)])


def _comparison_row(row: Row, c: Comparison) -> Line:
    return [
        _arm(row),
        _call(row),
        signed(c.difference),
        interval(c.low, c.high, signed),
        interval(c.bca_low, c.bca_high, signed),
        probability(c.p),
        probability(c.p_holm),
        c.method or NONE,
        str(len(c.differences)),
        "; ".join(c.notes) or NONE,
    ]


def _speedups(judgement: Judgement) -> Section | None:
    """All axes, with intervals."""
    rows = [
        _arm_line(row, [_speedup(row, axis) for axis in AXES])
        for row in judgement.rows
        if row.speedups
    ]
    if not rows:
        return None
    text = (
        "What the baseline spends to reach its mean final val loss, divided by what the arm spends "
        "to reach the same loss. Both are interpolated on the mean val curves; the interval is the "
        "95 % bootstrap over seeds, where 0 means that the arm missed the loss in some draws. "
        "FLOPs are the model's; those of an optimizer show in seconds."
    )
    columns = ("arm", *map(axis_words, AXES))
    return Section("speedups", "Speed-ups", text, [Table(columns, rows)])


def _speedup(row: Row, axis: str) -> str:
    """Ratio and interval."""
    s = row.speedups.get(axis)
    if s is None:
        return "not recorded"
    known = s.low is not None and s.high is not None and s.ratio
    return f"{s.words} [{s.low:.2f}, {s.high:.2f}]" if known else s.words


def _target(judgement: Judgement) -> Section | None:
    """What the arms spent to reach the target."""
    names = ("steps_to_target", "tokens_to_target", "seconds_to_target")
    rows = [
        _arm_line(row, [ranged(row.to_target.get(name)) for name in names])
        for row in judgement.rows
        if row.to_target
    ]
    if judgement.target is None or not rows:
        return None
    text = (
        f"Spent by the first evaluation with val loss at or below {judgement.target:.4f}: median "
        "(lowest to highest) over seeds. The default target is the baseline's mean final val loss, "
        "so about half of its own seeds narrowly miss it."
    )
    columns = ("arm", "steps", "tokens", "seconds")
    return Section("target", "Cost of the target", text, [Table(columns, rows)])


def _planner(judgement: Judgement) -> Section | None:
    """What more seeds would show."""
    p = judgement.planner
    if p.sigma is None and p.sigma_paired is None:
        return None
    shown = [[str(n), loss(a), loss(b)] for n, (a, b) in p.detectable.items()]
    needed = [[short(d), short(a, 9), short(b, 9)] for d, (a, b) in p.needed.items()]
    text = (
        f"The pooled std is {loss(p.sigma)} between seeds and {loss(p.sigma_paired)} between "
        "paired differences. Power 80 %, alpha 0.05, two-sided, one comparison. The unpaired "
        "numbers use Student's formula; Welch's test, which decides, detects somewhat less with "
        "few seeds."
    )
    tables = [
        Table(("seeds per arm", "smallest difference detected, unpaired", "paired"), shown),
        Table(("wanted difference", "seeds per arm, unpaired", "paired"), needed),
    ]
    return Section("planner", "How many seeds", text, tables)


def _costs(judgement: Judgement) -> Section:
    """Time and memory."""
    names = [name for name in COSTS if any(name in row.costs for row in judgement.rows)]
    rows = [
        _arm_line(row, [ranged(row.costs.get(name)) for name in names]) for row in judgement.rows
    ]
    text = "Median (lowest to highest) over all runs of an arm, also diverged and unfinished ones."
    columns = ("arm", *(COSTS[name] for name in names))
    return Section("costs", "Costs", text, [Table(columns, rows)])


def _scores(judgement: Judgement) -> Section:
    """Spikes, noise, and the numbers of a 2024 study."""
    rows = [
        _arm_line(row, [str(row.diverged), *(ranged(row.scores.get(n)) for n in SCORES)])
        for row in judgement.rows
    ]
    text = (
        "Median (lowest to highest). Stability and converged step come from a 2024 study. The "
        "first punishes learning and the second detects noise, so neither ranks the arms."
    )
    columns = ("arm", "diverged", *SCORES.values())
    return Section("scores", "Stability, spikes and noise", text, [Table(columns, rows)])
