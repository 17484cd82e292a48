"""What large batches change, from the records of contests: tables, and the figure of Keskar et al.

    python -m contest configs/contest/large_batch_small.toml
    python -m contest configs/contest/large_batch_updates.toml
    python -m analysis sharpness $(printf '%s@all ' runs/large_batch_*/*-s1-*) --draws 0
    python -m bench.large_batch runs/large_batch_small runs/large_batch_updates \
        --out docs/results/large_batch.svg

It prints Markdown. A table for each contest has its arms with their verdicts. The last table has
each optimizer's batches against its smallest of as many tokens, or else of as many updates, by
test loss, gap and sharpness, with 95 % intervals that hold jointly in a column. The figure has
every measure of sharpness over the loss, from checkpoint to checkpoint, a column for each optimizer
(Keskar et al., arXiv:1609.04836, with their measure in the first row).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import fmean, geometric_mean, median

import numpy as np

from bench.scaling import table as markdown
from report.formats import NONE, interval, loss, short, signed
from report.judgement import judge
from report.run import ReportError, Run, optimizer_words, value_at
from report.sharpness import MEASURES
from report.sources import read
from report.study import Study
from report.verdict import Comparison

NAMES = {
    "keskar_sharpness": "Keskar's sharpness, %",
    "largest_eigenvalue": "largest eigenvalue",
    "adaptive_sharpness": "adaptive sharpness, nats",
}
HELD_OUT = {"final_test_loss": "test loss", "train_test_gap": "test loss - train loss"}
COLOURS = ("#0f9368", "#0a78c2", "#d2600a", "#d0369a")  # of batches, smallest first


def batch(run: Run) -> int:
    """Tokens per update."""
    return int(value_at(run.config, "train.batch_tokens"))


def arms(study: Study) -> dict[str, list[Run]]:
    """The finished reporting runs of each arm that has some, in the contest's order."""
    found = {arm: study.finished(arm) for arm in study.arms}
    return {arm: runs for arm, runs in found.items() if runs}


def overview(study: Study) -> str:
    """A row for each arm: what it was, and what came out, as means over its seeds."""
    rows = {row.arm: row for row in judge(study).rows}
    table = []
    for arm, runs in arms(study).items():
        row, first = rows[arm], runs[0]
        best = (row.tuned.best if row.tuned else None) or {}
        table.append(
            [
                arm,
                f"{batch(first):,}",
                f"{first.total_steps:,}",
                ", ".join(f"{value:.3g}" for value in best.values()) or NONE,
                loss(row.mean),
                *_verdict(row.comparison),
                *(_mean(runs, name) for name in ("train_test_gap", *NAMES)),
                _noise(runs),
            ]
        )
    head = ["arm", "batch", "updates", "rate", "test loss", "against", "difference", "verdict"]
    head += [HELD_OUT["train_test_gap"], *NAMES.values(), "noise scale"]
    return markdown(head, table)


def _verdict(c: Comparison | None) -> list[str]:
    """The arm compared with, the difference with its joint interval, the call."""
    return [c.baseline, _difference(c), c.words] if c else [NONE, NONE, "baseline"]


def _difference(c: Comparison) -> str:
    """A difference, and its joint interval."""
    if not c.tested:
        return NONE
    return f"{signed(c.difference)} {interval(c.joint_low, c.joint_high, signed)}"


def _mean(runs: list[Run], name: str) -> str:
    values = [run.summary[name] for run in runs if name in run.summary]
    return short(fmean(values)) if values else NONE


def _noise(runs: list[Run]) -> str:
    """The noise scale at the end, tokens: the geometric mean of each run's last tenth's median."""
    found = [run.train.get("inside/noise_scale", np.array([])) for run in runs]
    known = [values[np.isfinite(values)] for values in found]
    ends = [float(median(values[-max(1, len(values) // 10) :])) for values in known if len(values)]
    return f"{geometric_mean(ends):,.0f}" if ends else NONE


def against_smaller(study: Study) -> Study:
    """Each arm against its optimizer's smallest batch: of as many tokens, else as many updates."""
    first = {arm: runs[0] for arm, runs in arms(study).items()}
    against: dict[str, str] = {}
    for arm, run in first.items():
        name = optimizer_words(run.config)
        smaller = [a for a, r in first.items() if optimizer_words(r.config) == name]
        smaller = [a for a in smaller if batch(first[a]) < batch(run)]
        smaller.sort(key=lambda a: batch(first[a]))
        equal = [a for a in smaller if first[a].summary["tokens"] == run.summary["tokens"]]
        equal = equal or [a for a in smaller if first[a].total_steps == run.total_steps]
        against |= {arm: equal[0]} if equal else {}
    return replace(study, arms=list(first), against=against, baseline=next(iter(first)))


def by_batch(study: Study) -> str:
    """What a larger batch changes, for each optimizer and measure."""
    own = against_smaller(study)
    compared = {**HELD_OUT, **NAMES}
    found = {name: {r.arm: r.comparison for r in judge(own, metric=name).rows} for name in compared}
    table = []
    for arm, smaller in own.against.items():
        columns = [found[name][arm] for name in compared]
        cells = [f"{_difference(c)} {c.call}" if c and c.tested else NONE for c in columns]
        table.append([f"{arm} less {smaller}", *cells])
    return markdown(["", *compared.values()], table)


def figure(study: Study, out: Path) -> None:
    """Every measure over the loss on the same training text; a column for each optimizer.

    Raises:
        ReportError: nothing was measured.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    every = [run for runs in arms(study).values() for run in runs]
    found = [(run, [x for x in run.sharpness if not x.only_loss]) for run in every]
    paths = [(run, path) for run, path in found if path]
    if not paths:
        raise ReportError(f"{study.name}: no sharpness was measured; see --help")
    runs = [run for run, _ in paths]
    columns = list(dict.fromkeys(optimizer_words(run.config) for run in runs))
    kinds = sorted({(batch(run), run.total_steps) for run in runs})
    with mpl.rc_context({"svg.hashsalt": "large_batch", "svg.fonttype": "none", "font.size": 9}):
        fig = plt.figure(figsize=(10, 7), layout="constrained")
        axes = fig.subplots(len(NAMES), len(columns), sharex=True, sharey="row", squeeze=False)
        for run, path in paths:
            kind = batch(run), run.total_steps
            label = f"{kind[0]:,} tokens, {kind[1]:,} updates" if run.seed == runs[0].seed else None
            style = {"color": COLOURS[kinds.index(kind)], "label": label, "ms": 3, "lw": 1}
            column = axes[:, columns.index(optimizer_words(run.config))]
            losses = [x.loss for x in path]
            for axis, name in zip(column, NAMES, strict=True):
                axis.plot(losses, [MEASURES[name](x) for x in path], "o-", **style)
        for axis, name in zip(axes[0], columns, strict=True):
            axis.set_title(name)
        for axis, name in zip(axes[:, 0], NAMES.values(), strict=True):
            axis.set(ylabel=name, yscale="log")
        for axis in axes.flat:
            axis.spines[["top", "right"]].set_visible(False)
        fig.supxlabel("loss, nats per token: training goes to the left")
        axes[0][-1].legend(frameon=False)
        fig.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
        plt.close(fig)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("contests", nargs="+", metavar="FOLDER", help="of contests")
    parser.add_argument("--out", type=Path, metavar="FILE.svg", help="the figure")
    options = parser.parse_args()
    try:
        for contest in options.contests:
            print(overview(read([contest])), end="\n\n")
        study = read(options.contests)
        print(by_batch(study))
        if options.out:
            figure(study, options.out)
    except ReportError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
