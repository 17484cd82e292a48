"""Tables of what the arms spend: speed-ups, the cost of the target, time and memory, scores."""

from __future__ import annotations

from report.formats import axis_words, ranged, short
from report.judgement import Judgement
from report.leaderboard import COSTS, SCORES, Row
from report.sections import Section, Table, arm_line
from report.speedups import AXES, LEAST_SEEDS, shown


def speedups(judgement: Judgement) -> Section | None:
    """All axes, with intervals."""
    rows = [
        arm_line(row.arm, [_speedup(row, axis) for axis in AXES])
        for row in judgement.rows
        if row.speedups
    ]
    if not rows:
        return None
    text = (
        "What the baseline spends on its final val loss, divided by what the arm spends on the "
        "same loss within a run, while the rate decays: so it depends on the schedules, and may "
        "rank arms otherwise than finished runs do. Geometric mean over pairs of equal seeds. "
        f"[95 %]: Student's t on logarithms; with fewer than {LEAST_SEEDS} seeds (lowest to "
        "highest) of the seeds. FLOPs are the model's; an optimizer's own show in seconds."
    )
    columns = ("arm", *map(axis_words, AXES))
    return Section("speedups", "Speed-up within a run", text, [Table(columns, rows)])


def _speedup(row: Row, axis: str) -> str:
    """Ratio and interval."""
    s = row.speedups.get(axis)
    return "not recorded" if s is None else shown(s)


def target(judgement: Judgement) -> Section | None:
    """What the arms spent to reach the target."""
    names = ("steps_to_target", "tokens_to_target", "seconds_to_target")
    rows = [
        arm_line(row.arm, [ranged(row.to_target.get(name)) for name in names])
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


def costs(judgement: Judgement) -> Section:
    """Time and memory."""
    names = [name for name in COSTS if any(name in row.costs for row in judgement.rows)]
    rows = [
        arm_line(row.arm, [ranged(row.costs.get(name)) for name in names]) for row in judgement.rows
    ]
    text = "Median (lowest to highest) over all runs of an arm, also diverged and unfinished ones."
    columns = ("arm", *(COSTS[name] for name in names))
    return Section("costs", "Time and memory", text, [Table(columns, rows)])


def scores(judgement: Judgement) -> Section:
    """Spikes, noise, and the numbers of a 2024 study."""
    rows = [
        arm_line(row.arm, [str(row.diverged), *_scores_of(row), *_rates_of(row)])
        for row in judgement.rows
    ]
    text = (
        "Median (lowest to highest). Stability and converged step come from a 2024 study. The "
        "first punishes learning and the second detects noise, so neither ranks the arms. lr "
        "factors are shares of the peak learning rate: if the means differ, the schedules differ "
        "in more than their shape."
    )
    columns = ("arm", "diverged", *SCORES.values(), "lr factor: mean", "last")
    title = "Stability, spikes, noise and rates"
    return Section("scores", title, text, [Table(columns, rows)], folded=True)


def _scores_of(row: Row) -> list[str]:
    return [ranged(row.scores.get(name)) for name in SCORES]


def _rates_of(row: Row) -> list[str]:
    return [short(row.mean_lr_factor), short(row.last_lr_factor)]
