"""Sensitivity to the learning rate, from tuning runs (Wortsman et al. 2023, section 2.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.loading import flat
from report.run import Run
from report.study import Study

UNEVEN = "the rates are not evenly spaced in log: a plain mean over them"


@dataclass(frozen=True)
class Sensitivity:
    """Final val loss over learning rates: {lr: loss}, the best other setting at each rate."""

    losses: dict[float, float]
    initial: float  # val loss before the first update, nats
    score: float  # mean over the rates of min(loss, initial), less the best
    note: str = ""


def sensitivity(study: Study, arm: str) -> Sensitivity | None:
    """Sensitivity of an arm (its name without a length); None below two rates.

    At each rate the best of the other settings counts, each a mean over tuning seeds. A diverged
    run counts as the loss before the first update. Further trials and tie seeds do not count, since
    they lie where the arm was good.
    """
    later = _later_runs(study, arm)
    runs = [run for run in study.runs if run.role == "tuning" and run.arm == arm and run.done]
    runs = [run for run in runs if run.name not in later]
    runs = [run for run in runs if run.summary.get("initial_val_loss") is not None]
    if not runs:
        return None
    initial = float(np.mean([run.summary["initial_val_loss"] for run in runs]))
    losses = _losses(runs, initial)
    if len(losses) < 2:
        return None
    capped = np.minimum(list(losses.values()), initial)
    steps = np.diff(np.log(list(losses)))
    even = bool(np.allclose(steps, steps[0], rtol=0.15))
    score = float(capped.mean() - capped.min())
    return Sensitivity(losses, initial, score, "" if even else UNEVEN)


def _later_runs(study: Study, arm: str) -> set[str]:
    """Runs that came after the grid or the search."""
    if study.tuning is None or arm not in study.tuning.arms:
        return set()
    seeds = len(study.tuning.seeds)
    trials = study.tuning.arms[arm].trials
    return {run for t in trials for run in (t.runs if t.round else t.runs[seeds:])}


def _losses(runs: Sequence[Run], initial: float) -> dict[float, float]:
    """The best loss at each rate, rates ascending."""
    settings: dict[tuple[float, str], list[float]] = {}
    for run in runs:
        config = flat(run.config)
        own = {k: v for k, v in config.items() if k.startswith(("optimizer", "schedule"))}
        rate = own.pop("optimizer.lr", None)
        loss = initial if run.diverged else run.final_loss
        if rate is not None and loss is not None:
            settings.setdefault((float(rate), repr(sorted(own.items()))), []).append(loss)
    best: dict[float, float] = {}
    for (rate, _), losses in sorted(settings.items()):
        best[rate] = min(best.get(rate, math.inf), float(np.mean(losses)))
    return best
