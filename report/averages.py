"""Final losses of averaged weights, beside the loss that is judged."""

from __future__ import annotations

from statistics import fmean

from report.formats import counted, loss, signed
from report.judgement import Judgement
from report.sections import Section, Table, arm_line
from report.study import Study


def averages(study: Study, judgement: Judgement) -> Section | None:
    """Each arm's other weights: what they would have given; None if no run has any."""
    judged = judgement.metric if judgement.metric.endswith("_loss") else "final_val_loss"
    rows = []
    for row in judgement.rows:
        runs = [run.summary for run in study.finished(row.arm)]
        names = dict.fromkeys(key for s in runs for key in s if key.startswith(f"{judged}_"))
        for key in names:
            both = [(s[judged], s[key]) for s in runs if None not in (s.get(judged), s.get(key))]
            if both:
                own, other = (fmean(column) for column in zip(*both, strict=True))
                cells = [key.removeprefix(f"{judged}_"), loss(other), signed(other - own)]
                rows.append(arm_line(row.arm, [*cells, counted(len(both), "run")]))
    if not rows:
        return None
    text = (
        "Mean final losses of weights that were evaluated beside those that are judged: averages, "
        "or raw, the weights themselves, where an average is judged (optimizer.wrap.NAME.judged). "
        "They decide nothing here. A difference below zero: these weights are better."
    )
    columns = ("arm", "weights", "final loss", "less the judged one", "n")
    return Section("averages", "Averaged weights", text, [Table(columns, rows)])
