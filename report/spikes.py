"""Which updates were spikes, and how to read the text that the run saw there."""

from __future__ import annotations

import shlex

import numpy as np

from report.run import WANDB_PREFIX, Run
from report.sections import Section, Table, arm_line
from report.study import Study

SHOWN_STEPS = 6  # of a run
SHOWN_RUNS = 40


def spikes(study: Study) -> Section | None:
    """Every reporting run with a spike; its worst update, by the rise of the loss."""
    found = [(run, steps) for arm in study.arms for run in study.of(arm) if (steps := _steps(run))]
    if not found:
        return None
    text = (
        "Updates whose loss or gradient norm is an outlier (docs/record.md). The command prints "
        "the text of the batch of the worst one, where the loss rose most."
    )
    if len(found) > SHOWN_RUNS:
        text += f" The first {SHOWN_RUNS} of {len(found)} runs."
    rows = [arm_line(run.arm, _cells(run, steps)) for run, steps in found[:SHOWN_RUNS]]
    columns = ("arm", "seed", "spikes", "at updates", "text of the worst")
    return Section("spikes", "Spikes", text, [Table(columns, rows)], folded=True)


def _steps(run: Run) -> list[int]:
    """Updates at which the share of spikes rose: without one it falls, or is zero."""
    score = run.train.get("train/spike_score")
    if score is None:
        return []
    return [int(step) for step in run.train["step"][1:][np.diff(score) > 0]]


def _cells(run: Run, steps: list[int]) -> list[str]:
    shown = ", ".join(map(str, steps[:SHOWN_STEPS]))
    more = f" and {len(steps) - SHOWN_STEPS} more" if len(steps) > SHOWN_STEPS else ""
    rise = np.diff(run.train["train/loss"], prepend=np.nan)
    at = np.isin(run.train["step"], steps)
    worst = int(run.train["step"][at][np.argmax(np.nan_to_num(rise[at]))])
    show = f"python -m data show {shlex.quote(run.source)} {worst}"
    if run.source.startswith(WANDB_PREFIX):
        show = "its folder is not here"
    return [str(run.seed), str(len(steps)), shown + more, show]
