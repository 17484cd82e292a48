"""The tables of a report: a judgement as sections, which report.md and report.html both print."""

from __future__ import annotations

from report import hellaswag, horizons, sharpness
from report.averages import averages
from report.cost_tables import cost, costs, scores, seconds, speedups, target
from report.formats import (
    NONE,
    counted,
    interval,
    loss,
    metric_words,
    probability,
    ranks,
    setting,
    short,
    signed,
)
from report.judgement import Judgement
from report.leaderboard import Row
from report.provenance import plan_history, provenance, runs_table
from report.sections import Cell, Line, Section, Table, arm_cell
from report.seeds_and_text import seeds_and_text
from report.spikes import spikes
from report.statistics import RESAMPLES
from report.study import Study
from report.tuning import choice, ledger, tuning
from report.variance import variances
from report.verdict import Comparison

FALSE_CALLS = (
    "up to 9 % of contests have a false call, instead of 5 % (docs/results/calibration.md)"
)
SHOWN_PROBLEMS = 200  # lines; more are counted, and those of runs are in results.csv


def sections(study: Study, judgement: Judgement, command: str) -> list[Section]:
    """Everything but the headline and the figures, in the order of reading.

    command: what the user typed, so that the report can be made again.
    """
    found = [
        _answer(study, judgement),
        _leaderboard(judgement),
        _problems(judgement),
        _comparisons(judgement),
        speedups(judgement),
        target(judgement),
        horizons.section(study),
        seconds(study),
        averages(study, judgement),
        hellaswag.section(study),
        seeds_and_text(judgement),
        sharpness.section(study),
        variances(judgement),
        _planner(judgement),
        tuning(study, judgement),
        choice(study, judgement),
        costs(judgement),
        scores(judgement),
        spikes(study),
        ledger(study),
        plan_history(study),
        runs_table(study),
        provenance(study, command),
    ]
    return [section for section in found if section is not None]


def _answer(study: Study, judgement: Judgement) -> Section:
    """What stands below the headline: which text decides, what is wrong, and what it cost."""
    lines = [judgement.judged_on] if judgement.judged_on else []
    if problems := judgement.problems:
        lines.append(f"{counted(len(problems), 'problem')}, the first: {problems[0]}")
    lines.append(f"Cost: {cost(run for run in study.runs if run.role == 'report')}")
    if tuned := [run for run in study.runs if run.role == "tuning"]:
        lines.append(f"Cost of tuning: {cost(tuned)}")
    return Section("answer", "In short", lines=lines)


def _leaderboard(judgement: Judgement) -> Section:
    columns = (
        "arm",
        "verdict",
        "rank",
        metric_words(judgement.metric),
        "95 %",
        "std",
        "n",
        "difference",
        "95 % of it",
        "p (Holm)",
        "tuned setting",
        "speed-up: tokens",
    )
    text = (
        "Arms are ordered by their means, but the order is no verdict: only better and worse are, "
        "at p < 0.05 after Holm's correction over the arms. rank: the places that an arm may have "
        "among all arms, by tests of all pairs together, which show less than the verdict against "
        "one baseline. A difference below zero is better; its interval is of this arm alone. std "
        "is taken over an arm's own seeds."
    )
    rows = [_leaderboard_row(row) for row in judgement.rows]
    caption = f"Every arm by {metric_words(judgement.metric)}, best mean first"
    return Section("leaderboard", "Leaderboard", text, [Table(columns, rows, caption)])


def _leaderboard_row(row: Row) -> Line:
    c = row.comparison
    return [
        arm_cell(row.arm),
        _call(row),
        ranks(row.ranks),
        Cell(loss(row.mean), "strong"),
        interval(row.low, row.high, loss),
        loss(row.std),
        str(row.n) if row.n == row.planned else f"{row.n} of {row.planned}",
        signed(c.difference) if c else NONE,
        interval(c.low, c.high, signed) if c else NONE,
        probability(c.p_holm) if c else NONE,
        setting(row.tuned.best) if row.tuned else NONE,
        row.speedups["tokens"].words if "tokens" in row.speedups else NONE,
    ]


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
        "95 % jointly",
        "95 % BCa",
        "p",
        "p (Holm)",
        "method",
        "pairs",
        "notes",
    )
    text = (
        "Student's t-test on the complete pairs of equal (seed, data_seed); Welch's t-test below "
        "two of them. Moderated t (from four arms on): each pair's variance is averaged with the "
        "mean of the others', never below its own, for twice the degrees of freedom. On strongly "
        f"skewed noise {FALSE_CALLS}. "
        f"The BCa bootstrap ({RESAMPLES:,} resamples) is there to compare and decides "
        "nothing: with few seeds its interval is too narrow."
    )
    return Section("comparisons", "Comparisons", text, [Table(columns, rows, "Each test")])


def _comparison_row(row: Row, c: Comparison) -> Line:
    return [
        arm_cell(row.arm),
        _call(row),
        signed(c.difference),
        interval(c.low, c.high, signed),
        interval(c.joint_low, c.joint_high, signed),
        interval(c.bca_low, c.bca_high, signed),
        probability(c.p),
        probability(c.p_holm),
        c.method or NONE,
        str(len(c.differences)),
        "; ".join(c.notes) or NONE,
    ]


def _planner(judgement: Judgement) -> Section | None:
    """What more seeds would show."""
    p = judgement.planner
    if p.sigma is None and p.sigma_paired is None:
        return None
    shown = [[str(n), loss(a), loss(b)] for n, (a, b) in p.detectable.items()]
    needed = [[short(d), short(a, 9), short(b, 9)] for d, (a, b) in p.needed.items()]
    text = (
        f"The pooled std is {loss(p.sigma)} between seeds and {loss(p.sigma_paired)} between "
        f"paired differences. Power 80 % of the rule that decides, in a contest of {p.arms} arms, "
        "one of which differs from the baseline. Seeds that the arms share (paired) mostly show "
        "more."
    )
    if any(row.comparison and row.comparison.method == "two-way t" for row in judgement.rows):
        text += " All of it for runs that share no seed: as many runs of crossed seeds show less."
    tables = [
        Table(
            ("seeds per arm", "unpaired", "paired"), shown, "Smallest difference that n seeds show"
        ),
        Table(("wanted difference", "unpaired", "paired"), needed, "Seeds for a wanted difference"),
    ]
    return Section("planner", "How many seeds", text, tables)
