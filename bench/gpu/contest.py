"""A small contest, planned, trained and judged: as a user does it."""

from __future__ import annotations

import sys
from typing import Any

import tomli_w

from bench.gpu.machine import OPTIONAL
from bench.gpu.part import TINY, Part, Row, Settings, check, finished, run
from record.contest import PlanFile
from record.hardware import version

TABLE, ARMS, SEEDS = "contest", ("cosine", "wsd"), (1, 2, 3)


def measure(settings: Settings, part: Part) -> None:
    """The contest by its command, then the report."""
    part.rows(TABLE, "all runs", lambda: [_trained(settings)])
    part.rows(TABLE, "report", lambda: [_judged(settings)])


def _missing(what: str) -> list[str]:
    return [name for name, use in OPTIONAL.items() if use == what and version(name) is None]


def _trained(settings: Settings) -> Row:
    expected = f"{len(ARMS) * len(SEEDS)} finished"
    if missing := _missing("contests"):
        return check("all runs", expected, f"not run: {', '.join(missing)} not installed", None)
    seeds = list(SEEDS[:2] if settings.tiny else SEEDS)
    values: dict[str, Any] = {"data.dir": str(settings.tokens()), "train.device": settings.device}
    values |= {"train.total_steps": 30, "eval.every": 10} | TINY if settings.tiny else {}
    contest = {
        "contest": {
            "name": "contest",
            "base": ["configs/quickstart.toml"],
            "baseline": ARMS[0],
            "seeds": seeds,
            "settings": values | {"log.wandb": "disabled"},
        },
        "arm": [{"name": name, "schedule.name": name} for name in ARMS],
    }
    file = settings.work / "contest.toml"
    file.write_text(tomli_w.dumps(contest))
    run([sys.executable, "-m", "contest", str(file), "--out", str(settings.work)])
    home = settings.work / "contest"
    plan = PlanFile.read(home)
    count = sum(bool(finished(home / run.directory)) for run in plan.runs) if plan else 0
    expected = f"{len(ARMS) * len(seeds)} finished"
    return check("all runs", expected, f"{count} finished", f"{count} finished" == expected)


def _judged(settings: Settings) -> Row:
    expected = f"a verdict on {ARMS[1]} against {ARMS[0]}"
    if missing := [*_missing("contests"), *_missing("reports")]:
        return check("report", expected, f"not made: {', '.join(missing)} not installed", None)
    run([sys.executable, "-m", "report", str(settings.work / "contest")])
    text = (settings.work / "contest" / "report.md").read_text()
    lines = [line for line in text.splitlines() if ARMS[1] in line]
    words = ("better", "worse", "equivalent", "undecided")
    said = next((line for line in lines if any(word in line for word in words)), None)
    return check("report", expected, said or "none", said is not None)
