"""A published contest and its judgement, once for all pages that print something of it."""

from __future__ import annotations

import functools
from dataclasses import replace

from report.judgement import Judgement, judge
from report.sources import read
from report.study import Study

NOT_RUN = "not run yet"  # in place of what a contest without a folder would show


@functools.cache
def published(folder: str, baseline: str | None = None) -> tuple[Study, Judgement]:
    """A contest by its folder; baseline: of all its arms, in place of those of its plan.

    Raises:
        ReportError: as `report.sources.read` and `report.judgement.judge`.
    """
    study = read([folder], baseline)
    study = replace(study, against={}) if baseline else study
    return study, judge(study, wanted=[study.smallest] if study.smallest else [])
