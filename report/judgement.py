"""From a study to a judgement: every number and word that the pages print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from report import METRICS
from report.headline import headline
from report.leaderboard import Row, row
from report.planner import Planner, plan
from report.ranks import ranking
from report.replay import Replay, replay
from report.run import ReportError, Run
from report.sensitivity import Sensitivity, sensitivity
from report.study import Study
from report.text import SPLITS, judged, text_parts
from report.verdict import compare, values_of

SHOWN_ARMS = 6  # in a message; more are counted


@dataclass(frozen=True)
class Judgement:
    """Everything that the pages print. rows: best mean first."""

    study: str
    metric: str
    target: float | None  # val loss, nats
    headline: str
    judged_on: str  # why the validation text decides; "" where it is the test text, or as asked
    best: tuple[str, ...]  # arms that may be the best
    provisional: str  # why the verdicts may still change; "" if all planned runs have ended
    smallest: float  # in the metric's unit; arms that differ by less are equivalent. 0: none are
    rows: list[Row]
    planner: Planner
    sensitivity: dict[str, Sensitivity]  # by arm, without lengths
    replay: Replay | None  # of the choice of settings
    problems: list[str]


def judge(
    study: Study,
    *,
    metric: str | None = None,
    censor_diverged: bool = False,
    wanted: Sequence[float] = (),
) -> Judgement:
    """The judgement of a study.

    metric: one of METRICS, lower is better; None: the final test loss, or the final val loss where
    a run has no test loss. censor_diverged: leave diverged runs out of means,
    instead of counting them as +inf. wanted: differences for which the planner gives n, in nats.

    Raises:
        ReportError: the metric is unknown; there are arms to compare, but no baseline among them.
    """
    judged_on = ""
    if metric is None:
        metric, judged_on = judged(study)
    if metric not in METRICS:
        raise ReportError(f"metric {metric!r} is not one of {', '.join(METRICS)}")
    _check_baseline(study)
    values = {arm: values_of(study, arm, metric, censor_diverged) for arm in study.arms}
    target = study.target if study.target is not None else _default_target(study)
    smallest = study.smallest if metric.endswith("_loss") else 0.0  # nats
    texts = text_parts(study, metric, values)
    comparisons = compare(study, values, smallest, texts)
    places = ranking(study, values, comparisons, smallest, texts)
    rows = [
        row(study, arm, values[arm], comparisons.get(arm), target, places.ranks.get(arm))
        for arm in study.arms
    ]
    rows.sort(key=lambda r: math.inf if r.mean is None else r.mean)
    planner = plan(values, comparisons, wanted)
    losses = comparisons if metric in SPLITS else {}  # what tuning's losses speak of
    found = {arm: sensitivity(study, arm) for arm in map(study.without_length, study.arms)}
    return Judgement(
        study=study.name,
        metric=metric,
        target=target,
        headline=headline(
            study.baseline,
            rows,
            metric,
            places,
            smallest=smallest,
            provisional=study.provisional,
        ),
        judged_on=judged_on,
        best=tuple(r.arm for r in rows if r.ranks and r.ranks[0] == 1),
        provisional=study.provisional,
        smallest=smallest,
        rows=rows,
        planner=planner,
        sensitivity={arm: s for arm, s in found.items() if s},
        replay=replay(study, losses, planner.sigma_paired, smallest),
        problems=_problems(study, metric, censor_diverged),
    )


def _check_baseline(study: Study) -> None:
    """Raise ReportError unless it is known which arm the others are compared with."""
    arms = list(dict.fromkeys(map(study.without_length, study.arms)))
    more = [f"{len(arms) - SHOWN_ARMS} more"] if len(arms) > SHOWN_ARMS else []
    names = ", ".join([*arms[:SHOWN_ARMS], *more])
    if study.baseline is None:
        if len(study.arms) > 1:
            raise ReportError(
                "which arm is the baseline? report one contest, or runs, by their own folders, or "
                f"give --baseline ARM, one of: {names}"
            )
    elif study.baseline not in {*study.arms, *map(study.without_length, study.arms)}:
        raise ReportError(
            f"baseline {study.baseline!r} is no arm; give one of: {names}; or a run of one"
        )


def _default_target(study: Study) -> float | None:
    """Mean final val loss of the baseline, of the first arm's length."""
    base = next((study.baseline_of(arm) for arm in study.arms), None)
    losses = [run.final_loss for run in study.finished(base)] if base else []
    return float(np.mean([loss for loss in losses if loss is not None])) if losses else None


def _problems(study: Study, metric: str, censored: bool) -> list[str]:
    """Everything that is wrong with the study and its runs, one line each."""
    problems = list(study.problems)
    for run in study.runs:
        name = f"{run.arm}, seed {run.seed} ({run.name})"
        problems += [f"{name}: {problem}" for problem in _run_problems(run, metric, censored)]
    problems += [f"{arm}: no reporting run" for arm in study.arms if not study.of(arm)]
    for arm, tuned in study.tuning.arms.items() if study.tuning else ():
        if tuned.edges:
            edges = ", ".join(tuned.edges)
            problems.append(
                f"{arm}: its best setting lies at the edge of the grid in {edges}; a wider grid "
                "may be better"
            )
    return problems


def _run_problems(run: Run, metric: str, censored: bool) -> list[str]:
    """What is wrong with one run, and what that means for its arm."""
    problems = list(run.problems)
    if run.recovered_from:
        climb = f"its loss climbed for {run.recovered_from} updates and came back"
        problems.append(f"{climb}; it counts as it ended")
    if run.role == "report" and run.diverged:
        why = run.summary.get("diverged_reason") or "non-finite"
        counts = "left out of means, as asked" if censored else "its mean is infinite"
        problems.append(f"diverged ({why}); {counts}")
    elif run.role == "report" and run.status == "finished" and run.summary.get(metric) is None:
        problems.append(f"no {metric}; not in the means")
    return problems
