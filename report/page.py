"""report.html: one file with style, script, plotly.js and data in it, which asks no network.

The templates escape whatever they print, since names of arms, errors and configurations come from
files. Only our own style and scripts, and the figures' JSON, are marked as safe here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from report.drawing import BASELINE_COLOUR, styles
from report.figures import figures
from report.judgement import Judgement
from report.sections import Section
from report.study import Study

TEMPLATES = Path(__file__).parent / "templates"
ABOVE_FIGURES = ("leaderboard", "problems")


def page(study: Study, judgement: Judgement, sections: Sequence[Section]) -> str:
    """The whole page."""
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = figures(study, judgement)
    return environment.get_template("page.html").render(
        judgement=judgement,
        facts=_facts(study),
        first=[section for section in sections if section.id in ABOVE_FIGURES],
        rest=[section for section in sections if section.id not in ABOVE_FIGURES],
        styles=styles(study),
        baseline_colour=BASELINE_COLOUR,
        figures=[(figure, _json(figure.plot)) for figure in drawn],
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        plotly=Markup(get_plotlyjs()),
    )


def _facts(study: Study) -> list[str]:
    """What was compared, in a few words each."""
    runs = [run for run in study.runs if run.role == "report"]
    steps = {run.total_steps for run in runs if run.total_steps}
    facts = [f"{len(study.arms)} arms", f"{len(runs)} runs"]
    facts += [f"baseline {study.baseline}"] if study.baseline else []
    facts += [f"{steps.pop():,} steps"] if len(steps) == 1 else []
    return facts


def _json(plot: Any) -> Markup:
    """A figure's data for a script element; plotly escapes what would end that element."""
    import plotly.io

    return Markup(plotly.io.to_json(plot, validate=False))
