"""Published claims against our contests: a typed table of claims, and verdicts from intervals.

claims.toml has a [[claim]] for each: what is claimed and where, which contest can say something
about it, and what would agree or disagree (`ASKS`). No verdict is written by hand.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from configs.validation import Strict
from report.formats import interval, ranks, signed
from report.horizons import BELOW, BEYOND, horizons
from report.judgement import Judgement
from report.leaderboard import Row
from report.published import NOT_RUN, published
from report.run import ReportError
from report.sections import Section, Table
from report.speedups import LEAST_SEEDS, shown
from report.study import Study

Verdict = Literal["agrees", "disagrees", "undecided"]
Ask = Literal["better", "as good", "first", "speedup", "faster update"]


class Claim(Strict):
    """One claim. arms: those that it speaks for; against: the arm that they are compared with."""

    claim: str
    source: str
    contest: str  # folder of the published contest
    ask: Ask
    arms: list[str] = Field(min_length=1)
    against: str | None = None
    factor: float | None = None  # of `speedup`: at least so many times fewer tokens

    @model_validator(mode="after")
    def _complete(self) -> Claim:
        if (self.ask != "first") != (self.against is not None):
            raise ValueError("`against` names an arm, except with ask = 'first'")
        if (self.ask == "speedup") != (self.factor is not None):
            raise ValueError("`factor` belongs to ask = 'speedup'")
        return self


class _File(Strict):
    claim: list[Claim]


class _Answer(NamedTuple):
    """verdict of one arm, and the numbers that it rests on."""

    verdict: Verdict
    numbers: str


def read(file: Path) -> list[Claim]:
    """The claims of a file.

    Raises:
        ReportError: it cannot be read, or a claim does not fit.
    """
    try:
        return _File.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))).claim
    except (OSError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise ReportError(f"{file} does not hold claims: {what}") from error


def section(file: Path) -> Section:
    """Every claim with its verdict."""
    columns = ("claim", "source", "contest", "what it found", "verdict")
    rows = [[c.claim, c.source, Path(c.contest).name, *_answer(c)] for c in read(file)]
    return Section("claims", "Published claims", "", [Table(columns, rows)], _meanings())


def _answer(claim: Claim) -> tuple[str, str]:
    """What the contest found, and the verdict over all arms of the claim."""
    if not Path(claim.contest).exists():
        return NOT_RUN, NOT_RUN
    found = {arm: ASKS[claim.ask].answer(claim, arm) for arm in claim.arms}
    said = "; ".join(f"{arm} {a.numbers}" for arm, a in found.items())
    verdicts = {a.verdict for a in found.values()}
    order: tuple[Verdict, ...] = ("disagrees", "undecided", "agrees")  # all arms have to agree
    provisional = published(claim.contest)[1].provisional
    verdict = next(v for v in order if v in verdicts)
    return said, f"{verdict} (provisional)" if provisional else verdict


def _difference(claim: Claim, arm: str) -> _Answer:
    """By the call of the arm against `against`; every arm of the contest is tested with it."""
    row = _row(claim, arm)
    c = row.comparison
    if c is None or not c.tested:
        lost = c is not None and c.call == "diverged"
        return _Answer("disagrees" if lost else "undecided", c.words if c else "is not compared")
    good = {"better", "equivalent"} if claim.ask == "as good" else {"better"}
    bad = {"worse"} if claim.ask == "as good" else {"worse", "equivalent"}
    verdict: Verdict = "agrees" if c.call in good else "disagrees" if c.call in bad else "undecided"
    joint = interval(c.joint_low, c.joint_high, signed)
    return _Answer(verdict, f"{signed(c.difference)} {joint} against {c.baseline}: {c.words}")


def _first(claim: Claim, arm: str) -> _Answer:
    """By the ranks that the arm may have."""
    row, places = _row(claim, arm), len(claim.arms)
    if row.ranks is None:
        return _Answer("disagrees" if row.diverged else "undecided", "has no rank")
    best, worst = row.ranks
    verdict: Verdict = (
        "agrees" if worst <= places else "disagrees" if best > places else "undecided"
    )
    return _Answer(verdict, f"has rank {ranks(row.ranks)}")


def _speedup(claim: Claim, arm: str) -> _Answer:
    """At the longest length; outside the arm's lengths it is known on one side.

    Fewer than LEAST_SEEDS seeds give no interval, so they agree or disagree with nothing.
    """
    study, _ = _judged(claim)
    found = horizons(study).get(arm)
    if found is None:
        raise ReportError(f"{claim.contest}: {arm} has no speed-up over horizons")
    if not found.speedups:
        return _Answer("undecided", found.why)
    first, last = min(found.speedups), max(found.speedups)
    at, limit = found.speedups[last], claim.factor or 0.0
    low, high, said = at.low, at.high, shown(at)
    if at.words == BELOW:
        low, high, said = last / first, math.inf, f"more than {last / first:.3g} x"
    elif at.words == BEYOND:
        low, high, said = 0.0, 1.0, "less than 1 x"
    runs = [run for name in study.arms for run in study.finished(name)]
    seeds = {run.pair for run in runs if study.without_length(run.arm) == arm}
    few = len(seeds) < LEAST_SEEDS or at.interval == "range of seeds"
    if low is None or high is None or few:
        return _Answer("undecided", said)
    verdict: Verdict = "agrees" if low >= limit else "disagrees" if high < limit else "undecided"
    return _Answer(verdict, f"{said} at {last:,} tokens")


def _faster(claim: Claim, arm: str) -> _Answer:
    """By the step times that were measured alone, round by round."""
    study, _ = published(claim.contest)
    arms = dict.fromkeys(map(study.without_length, study.arms))
    if unknown := [name for name in (arm, claim.against) if name not in arms]:
        raise ReportError(f"{claim.contest} has no arm {unknown[0]!r}; it has {', '.join(arms)}")
    mine, theirs = study.step_ms.get(arm), study.step_ms.get(claim.against or "")
    if not mine or not theirs:
        return _Answer("undecided", "was not timed")
    ratios = sorted(a / b for a, b in zip(mine, theirs, strict=True))
    verdict: Verdict = "agrees" if ratios[-1] < 1 else "disagrees" if ratios[0] > 1 else "undecided"
    ends = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return _Answer(verdict, f"takes {ends} times as long for an update as {claim.against}")


def _row(claim: Claim, arm: str) -> Row:
    """The arm's row, compared with `against` if the claim names one."""
    _, judgement = _judged(claim)
    found = {row.arm: row for row in judgement.rows}
    if arm not in found:
        raise ReportError(f"{claim.contest} has no arm {arm!r}; it has {', '.join(found)}")
    return found[arm]


def _judged(claim: Claim) -> tuple[Study, Judgement]:
    """The contest, all of whose arms are compared with `against` if the claim names one."""
    study, judgement = published(claim.contest)
    if claim.against in (None, study.baseline) and not study.against:
        return study, judgement
    return published(claim.contest, claim.against)


class _Question(NamedTuple):
    answer: Callable[[Claim, str], _Answer]
    agrees: str
    disagrees: str


ASKS: dict[Ask, _Question] = {
    "better": _Question(_difference, "the arm is better", "it is worse or equivalent, or diverged"),
    "as good": _Question(_difference, "the arm is better or equivalent", "it is worse or diverged"),
    "first": _Question(
        _first,
        "the k arms named have no rank above k",
        "one of them has no rank up to k, or diverged",
    ),
    "speedup": _Question(_speedup, "the 95 % interval is at or above the factor", "it is below"),
    "faster update": _Question(_faster, "every round was faster", "every round was slower"),
}


def _meanings() -> list[str]:
    """What each question takes for yes and no."""
    return [f"{ask}: agrees if {q.agrees}; disagrees if {q.disagrees}" for ask, q in ASKS.items()]
