"""report.html: one file with style, script, plotly.js and data in it, which asks no network.

The templates escape whatever they print, since names of arms, errors and configurations come from
files. Only our own style and scripts, and what is packed, are marked as safe here.

plotly.js and the figures' data lie in the page as gzip in base64: 2 MB instead of 4.8, and half of
what JSON takes. plotly.js is the file of the installed plotly, so that nothing is vendored and
figures and script are of one version.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from report.drawing import styles
from report.figures import figures
from report.forest import forest
from report.formats import counted
from report.judgement import Judgement
from report.sections import Section
from report.study import Study

TEMPLATES = Path(__file__).parent / "templates"
PICTURE = "forest.svg"
ANSWER = "answer"  # the section that stands below the headline, without a title
ABOVE_FIGURES = ("leaderboard", "problems")


def page(study: Study, judgement: Judgement, sections: Sequence[Section]) -> str:
    """The whole page."""
    drawn = [(figure, _data(figure.plot)) for figure in figures(study, judgement)]
    below = [section for section in sections if section.id != ANSWER]
    return _template("page.html").render(
        judgement=judgement,
        facts=_facts(study),
        fair_seconds=not any(run.shared for run in study.runs if run.role == "report"),
        answer=[line for section in sections if section.id == ANSWER for line in section.lines],
        forest=forest(judgement),
        first=[section for section in below if section.id in ABOVE_FIGURES],
        rest=[section for section in below if section.id not in ABOVE_FIGURES],
        styles=styles(study),
        figures=[pair for pair in drawn if not pair[0].folded],
        more_figures=[pair for pair in drawn if pair[0].folded],
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        plotly=_plotly(),
    )


def picture(judgement: Judgement) -> str | None:
    """The forest plot as an SVG file; None if there is no difference."""
    shown = forest(judgement)
    return _template("forest.svg").render(forest=shown) if shown else None


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _facts(study: Study) -> list[str]:
    """What was compared, in a few words each."""
    runs = [run for run in study.runs if run.role == "report"]
    steps = {run.total_steps for run in runs if run.total_steps}
    facts = [counted(len(study.arms), "arm"), counted(len({run.pair for run in runs}), "seed")]
    facts += [f"{steps.pop():,} steps"] if len(steps) == 1 else []
    facts += [f"baseline {study.baseline}"] if study.baseline else []
    return facts


def _data(plot: Any) -> Markup:
    """A figure's data."""
    import plotly.io

    return _packed(plotly.io.to_json(plot, validate=False))


def _plotly() -> Markup:
    """plotly.js."""
    from plotly.offline import get_plotlyjs

    return _packed(get_plotlyjs())


def _packed(text: str) -> Markup:
    """Text for a script element, as the page's script unpacks it: gzip in base64."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode())
