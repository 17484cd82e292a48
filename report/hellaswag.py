"""HellaSwag in the report: final accuracy of each arm, and how it rose."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from statistics import fmean, stdev

from record.hellaswag import interval
from report import drawing, series
from report.drawing import Figure, Style
from report.formats import NONE, counted, loss
from report.formats import interval as bounds
from report.run import ACCURACY, Run
from report.sections import Section, Table, arm_line
from report.study import Study

PREFIX = "final_hellaswag_acc_norm"
Asked = tuple[str, int, str]  # weights, number of questions, their hash


def section(study: Study) -> Section | None:
    """Each arm's share of right answers; None if no run was asked."""
    rows = []
    for arm in study.arms:
        for (weights, count, digest), values in _answers(study.finished(arm)).items():
            mean = fmean(values)
            cells = [
                weights,
                loss(mean),
                bounds(*interval(mean, count), loss),
                loss(stdev(values)) if len(values) > 1 else NONE,
                counted(len(values), "run"),
                f"{count:,} ({digest or 'hash not recorded'})",
            ]
            rows.append(arm_line(arm, cells))
    if not rows:
        return None
    text = (
        "Share of questions whose right ending has the lowest mean loss (acc_norm), after the last "
        "update, mean over runs; chance is 0.25. The interval is Wilson's for one run with this "
        "share: what other questions would show. std is taken over seeds. Rows on other questions "
        "(their number, and a hash) do not compare. It decides nothing here."
    )
    columns = ("arm", "weights", "accuracy", "95 %", "std", "n", "questions")
    return Section("hellaswag", "HellaSwag", text, [Table(columns, rows)])


def _answers(runs: list[Run]) -> dict[Asked, list[float]]:
    """Final accuracies of an arm's runs, by weights and questions."""
    found: dict[Asked, list[float]] = defaultdict(list)
    for run in runs:
        count = run.summary.get("final_hellaswag_questions")
        for key, value in run.summary.items():
            if count and key.startswith(PREFIX) and value is not None:
                weights = key[len(PREFIX) + 1 :] or "judged"
                asked = weights, int(count), run.hashes.get("hellaswag", "")[:8]
                found[asked].append(float(value))
    return found


def figure(study: Study, look: Mapping[str, Style]) -> Figure | None:
    """Accuracy over the steps, of the runs that were asked what most of them were."""
    asked = {
        arm: [run for run in runs if ACCURACY in run.val]
        for arm, runs in series.shown_runs(study).items()
    }
    hashes = Counter(run.hashes.get("hellaswag") for runs in asked.values() for run in runs)
    usual = hashes.most_common(1)[0][0] if hashes else None
    alike = {
        arm: [run for run in runs if run.hashes.get("hellaswag") == usual]
        for arm, runs in asked.items()
    }
    found = {arm: series.evaluations(runs, ACCURACY) for arm, runs in alike.items() if runs}
    shown = {arm: points for arm, points in found.items() if points}
    if not shown:
        return None
    plot = drawing.new(yaxis={"title": "accuracy (acc_norm)"})
    for arm, points in shown.items():
        drawing.curve(plot, look[arm], points, points.low, marked=True)
    drawing.over_steps(plot, {arm: points.axes for arm, points in shown.items()}, [], [])
    drawing.level(plot, 0.25)
    drawing.label_ends(plot, look, shown)
    left_out = sum(hashes.values()) - hashes[usual]
    note = "Line: mean over seeds. Band: lowest and highest seed. Dotted: chance."
    note += f" {counted(left_out, 'run')} on other questions left out." if left_out else ""
    ends = {arm: loss(float(points.mean[-1])) for arm, points in shown.items()}
    said = drawing.in_words("Accuracy on HellaSwag over the steps; at the end", ends)
    return Figure("hellaswag_curve", "HellaSwag", note, said, plot, folded=True)
