"""Tables of what the arms spend: speed-ups, the cost of the target, time and memory, scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from report.formats import NONE, axis_words, counted, hours, ranged, short
from report.judgement import Judgement
from report.leaderboard import COSTS, SCORES, Row
from report.run import Run
from report.sections import Section, Table, arm_line
from report.speedups import AXES, LEAST_SEEDS, shown
from report.study import Study


def cost(runs: Iterable[Run]) -> str:
    """How many have begun, their seconds of training and their tokens."""
    planned = list(runs)
    begun = [run for run in planned if run.status != "missing"]
    seconds = sum(run.summary.get("train_seconds") or 0.0 for run in begun)
    tokens = sum(run.summary.get("tokens") or 0 for run in begun)
    words = counted(len(planned), "run")
    parts = [words if len(begun) == len(planned) else f"{len(begun):,} of {words}"]
    parts += [f"{hours(seconds)} of training"] if seconds else []
    parts += [f"{short(tokens / 1e6)} million tokens"] if tokens else []
    return ", ".join(parts)


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


def seconds(study: Study) -> Section | None:
    """Whose seconds count, and step times measured alone; None if all do and none were."""
    runs = {arm: study.of(arm) for arm in study.arms}
    if not study.step_ms and not any(run.shared for each in runs.values() for run in each):
        return None
    rows = [arm_line(arm, _seconds(study, arm, each)) for arm, each in runs.items()]
    text = (
        "Seconds are compared only between runs that had their machine for themselves: no other "
        "training at the start or end of a launch, no run of this study at the same time, and no "
        "load beyond the run's own threads. Elsewhere they are withheld. `python -m contest "
        "CONTEST.toml --timing` measures some updates of each arm alone, in turn: the seconds of a "
        "speed-up are then its updates times this median (lowest to highest) of the rounds."
    )
    columns = (
        "arm",
        "runs that count",
        "why others do not",
        "ms per update, alone",
        "to baseline's",
    )
    return Section("seconds", "Seconds", text, [Table(columns, rows)])


def _seconds(study: Study, arm: str, runs: Sequence[Run]) -> list[str]:
    """Cells of one arm."""
    reasons = Counter(run.shared for run in runs if run.shared)
    why = "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common())
    counted = f"{sum(not run.shared for run in runs)} of {len(runs)}"
    base = study.baseline_of(arm) or arm
    mine, theirs = (study.step_ms.get(study.without_length(name)) for name in (arm, base))
    if not mine:
        return [counted, why or NONE, "not measured", NONE]
    spread = f"{median(mine):.2f} ({min(mine):.2f} to {max(mine):.2f})"
    return [
        counted,
        why or NONE,
        spread,
        f"{median(mine) / median(theirs):.3f}" if theirs else NONE,
    ]


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
