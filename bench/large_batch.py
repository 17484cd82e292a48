"""The figure of Keskar et al. from contests at several batches: sharpness over loss in training.

    python -m contest configs/contest/large_batch_small.toml
    python -m contest configs/contest/large_batch_updates.toml
    python -m analysis sharpness $(printf "%s@all " runs/large_batch_*/*-s1-*) --draws 0 \
        --tokens 2048
    python -m analysis sharpness runs/large_batch_*/*-s[23]-* --draws 0 --tokens 2048
    python -m bench.large_batch runs/large_batch_small runs/large_batch_updates \
        --out docs/results/large_batch.svg

A row for each measure of sharpness, a column for each optimizer, a colour for each batch, a path
from checkpoint to checkpoint for each run (arXiv:1609.04836; their measure is in the first row).
The tables beside it are those of report/batches.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from report.batches import NAMES, batch
from report.run import ReportError, optimizer_words
from report.sharpness import MEASURES
from report.sources import read
from report.study import Study

COLOURS = ("#0f9368", "#0a78c2", "#d2600a", "#d0369a")  # of batches, smallest first


def figure(study: Study, out: Path) -> None:
    """Every measure over the loss on the same training text; a column for each optimizer.

    Raises:
        ReportError: nothing was measured, or there are more batches than colours.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    every = [run for arm in study.arms for run in study.finished(arm)]
    found = [(run, [x for x in run.sharpness if not x.only_loss]) for run in every]
    paths = [(run, path) for run, path in found if path]
    if not paths:
        raise ReportError(f"{study.name}: no sharpness was measured; see --help")
    runs = [run for run, _ in paths]
    columns = list(dict.fromkeys(optimizer_words(run.config) for run in runs))
    kinds = sorted({(batch(run), run.total_steps) for run in runs})
    if len(kinds) > len(COLOURS):
        raise ReportError(f"{len(kinds)} batches, but {len(COLOURS)} colours; give fewer contests")
    labels = [f"{tokens:,} tokens, {updates:,} updates" for tokens, updates in kinds]
    with mpl.rc_context({"svg.hashsalt": "large_batch", "svg.fonttype": "none", "font.size": 9}):
        fig = plt.figure(figsize=(10, 7), layout="constrained")
        axes = fig.subplots(len(NAMES), len(columns), sharex="col", sharey="row", squeeze=False)
        for run, path in paths:
            kind = batch(run), run.total_steps
            style = {"color": COLOURS[kinds.index(kind)], "label": labels[kinds.index(kind)]}
            column = axes[:, columns.index(optimizer_words(run.config))]
            losses = [x.loss for x in path]
            for axis, name in zip(column, NAMES, strict=True):
                axis.plot(losses, [MEASURES[name](x) for x in path], "o-", ms=3, lw=1, **style)
        for axis, name in zip(axes[0], columns, strict=True):
            axis.set_title(name)
        for axis, name in zip(axes[:, 0], NAMES.values(), strict=True):
            axis.set(ylabel=name, yscale="log")
        for axis in axes.flat:
            axis.spines[["top", "right"]].set_visible(False)
        fig.supxlabel("loss, nats per token: training goes to the left")
        lines = {str(line.get_label()): line for axis in axes[0] for line in axis.lines}
        fig.legend(
            [lines[label] for label in labels],
            labels,
            loc="outside upper center",
            ncols=4,
            frameon=False,
        )
        fig.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
        plt.close(fig)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("contests", nargs="+", metavar="FOLDER", help="of contests")
    parser.add_argument("--out", type=Path, metavar="FILE.svg", required=True, help="the figure")
    options = parser.parse_args()
    try:
        figure(read(options.contests), options.out)
    except ReportError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
