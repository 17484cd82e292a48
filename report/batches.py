"""What larger batches change: arms of several optimizers at several batches, in two tables.

The first has every arm with its contest's verdict. The second has each optimizer's larger batches
against its smallest of as many tokens, or else of as many updates, by test loss, by the gap between
test and training text, and by sharpness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, geometric_mean

from report.formats import NONE, interval, loss, short, signed
from report.judgement import judge
from report.published import published
from report.run import Run, optimizer_words, value_at
from report.sections import Line, Section, Table, arm_line
from report.sources import read
from report.study import Study
from report.verdict import Comparison

NAMES = {
    "keskar_sharpness": "Keskar's sharpness, %",
    "largest_eigenvalue": "largest eigenvalue",
    "adaptive_sharpness": "adaptive sharpness, nats",
}
HELD_OUT = {"final_test_loss": "test loss", "train_test_gap": "test loss - train loss"}


def section(folders: Sequence[str]) -> Section:
    """The tables of contests; one without a folder has a line that says so."""
    there = [folder for folder in folders if Path(folder).exists()]
    missing = [Path(folder).name for folder in folders if folder not in there]
    command = "python -m contest configs/contest"
    lines = [f"not run yet: {command}/{name}.toml" for name in missing]
    tables = [overview(published(folder)[0]) for folder in there]
    tables += [by_batch(read(there))] if there else []
    return Section("batches", "Batches", "", tables, lines)


def batch(run: Run) -> int:
    """Tokens per update."""
    return int(value_at(run.config, "train.batch_tokens"))


def _tokens(run: Run) -> int:
    """Of the whole run, also of one that diverged."""
    return batch(run) * (run.total_steps or 0)


def arms(study: Study) -> dict[str, list[Run]]:
    """The reporting runs that have ended of each arm that has some, in the contest's order."""
    found = {arm: [run for run in study.of(arm) if run.done and run.config] for arm in study.arms}
    return {arm: runs for arm, runs in found.items() if runs}


def overview(study: Study) -> Table:
    """A row for each arm: what it was, and what came out, as means over its seeds."""
    rows = {row.arm: row for row in judge(study).rows}
    table: list[Line] = []
    for arm, runs in arms(study).items():
        row, first = rows[arm], runs[0]
        best = (row.tuned.best if row.tuned else None) or {}
        known = [run.summary.get("noise_scale") for run in runs if not run.diverged]
        noise = [x for x in known if x is not None]
        cells = [
            f"{batch(first):,}",
            f"{first.total_steps:,}",
            ", ".join(f"{value:.3g}" for value in best.values()) or NONE,
            loss(row.mean),
            *_verdict(row.comparison),
            *(_mean(runs, name) for name in ("train_test_gap", *NAMES)),
            f"{geometric_mean(noise):,.0f}" if noise and min(noise) > 0 else NONE,
        ]
        table.append(arm_line(arm, cells))
    head = ["arm", "batch", "updates", "rate", "test loss", "against", "difference", "verdict"]
    head += [HELD_OUT["train_test_gap"], *NAMES.values(), "noise scale"]
    return Table(head, table)


def _verdict(c: Comparison | None) -> list[str]:
    """The arm compared with, the difference with its joint interval, the call."""
    return [c.baseline, _difference(c), c.words] if c else [NONE, NONE, "baseline"]


def _difference(c: Comparison, words: Callable[[float | None], str] = signed) -> str:
    """A difference, and its joint interval."""
    if not c.tested:
        return NONE
    return f"{words(c.difference)} {interval(c.joint_low, c.joint_high, words)}"


def _three_figures(x: float | None) -> str:
    """A difference that is no loss."""
    return NONE if x is None else f"{x:+.3g}".replace("-", "−")


def _outcome(c: Comparison | None, words: Callable[[float | None], str]) -> str:
    """Difference and call; the call alone if there are runs, but no test."""
    if c and c.tested:
        return f"{_difference(c, words)} {c.call}"
    return c.call if c and (c.call != "no verdict" or c.differences) else NONE


def _mean(runs: list[Run], name: str) -> str:
    """Over the runs that did not diverge."""
    values = [x for run in runs if not run.diverged and (x := run.summary.get(name)) is not None]
    return short(fmean(values)) if values else NONE


def against_smaller(study: Study) -> Study:
    """Each arm against its optimizer's smallest batch: of as many tokens, else as many updates."""
    first = {arm: runs[0] for arm, runs in arms(study).items()}
    against: dict[str, str] = {}
    for arm, run in first.items():
        name = optimizer_words(run.config)
        smaller = [a for a, r in first.items() if optimizer_words(r.config) == name]
        smaller = [a for a in smaller if batch(first[a]) < batch(run)]
        smaller.sort(key=lambda a: batch(first[a]))
        equal = [a for a in smaller if _tokens(first[a]) == _tokens(run)]
        equal = equal or [a for a in smaller if first[a].total_steps == run.total_steps]
        against |= {arm: equal[0]} if equal else {}
    return replace(study, arms=list(first), against=against, baseline=next(iter(first), None))


def by_batch(study: Study) -> Table:
    """What a larger batch changes, for each optimizer and measure; intervals hold in a column."""
    own = against_smaller(study)
    compared = {**HELD_OUT, **NAMES}
    found = {name: {r.arm: r.comparison for r in judge(own, metric=name).rows} for name in compared}
    table: list[Line] = []
    for arm, smaller in own.against.items():
        cells = [
            _outcome(found[name][arm], signed if name in HELD_OUT else _three_figures)
            for name in compared
        ]
        table.append([f"{arm} less {smaller}", *cells])
    return Table(["batches", *compared.values()], table)
