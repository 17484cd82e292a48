"""At this scale choose ...: one line per contest, from its judgement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from report.cost_tables import cost
from report.formats import NONE, counted, loss, short
from report.judgement import Judgement
from report.published import NOT_RUN, published
from report.sections import Section, Table
from report.study import Study

SHOWN_ARMS = 8  # in a cell; more are counted


def section(folders: Sequence[str]) -> Section:
    """One row per contest, in the order given, and what they have cost in all."""
    columns = ("contest", "scale", "answer", "may be the best", "how sure")
    found = {path: published(path) for path in folders if Path(path).exists()}
    rows = [_row(Path(path).name, *found.get(path, (None, None))) for path in folders]
    runs = [run for study, _ in found.values() for run in study.runs if run.role != "trunk"]
    lines = [f"Cost of all, tuning included, a branch with its trunk: {cost(runs)}"]
    return Section("choices", "At this scale", "", [Table(columns, rows)], lines)


def _row(name: str, study: Study | None, judgement: Judgement | None) -> list[str]:
    if not (study and judgement):
        return [name, NOT_RUN, NOT_RUN, NOT_RUN, NOT_RUN]
    best = judgement.best
    more = [f"{len(best) - SHOWN_ARMS} more"] if len(best) > SHOWN_ARMS else []
    may = ", ".join([*best[:SHOWN_ARMS], *more])
    return [name, _scale(study), judgement.headline, may or NONE, _sure(study, judgement)]


def _scale(study: Study) -> str:
    """Parameters, tokens of a run, and their ratio."""
    runs = [run.summary for run in study.runs if run.role == "report" and run.done]
    sizes = [
        (s["parameters"], s["tokens"]) for s in runs if s.get("parameters") and s.get("tokens")
    ]
    if not sizes:
        return "not recorded"
    parameters, tokens = (_range([x / 1e6 for x in each]) for each in zip(*sizes, strict=True))
    each = _range([d / n for n, d in sizes])
    return f"{parameters} M parameters, {tokens} M tokens, {each} for each parameter"


def _range(values: Sequence[float]) -> str:
    """Lowest to highest, to three digits."""
    return " to ".join(dict.fromkeys(map(short, (min(values), max(values)))))


def _sure(study: Study, judgement: Judgement) -> str:
    """Seeds, and the difference that they show."""
    seeds = len({run.pair for run in study.runs if run.role == "report"})
    shown = judgement.planner.detectable.get(seeds, (None, None))[1]
    power = f"; {loss(shown)} nats are shown with 80 % power" if shown else ""
    least = min(row.n for row in judgement.rows)
    words = counted(seeds, "seed") if least >= seeds else f"{least} of {counted(seeds, 'seed')}"
    return f"{counted(len(study.arms), 'arm')}, {words}{power}"
