"""Local gain of AdamW, Adam-mini, SGD and SGD-SaI through training, by tensor.

    python -m data stdlib
    python -m bench.local_gain [--out docs/results/local_gain.png] [--runs runs/local_gain]

The first figure of SGD-SaI's package (Xu et al., arXiv:2412.11768) shows by how much each of them
scales the gradient of a tensor: adaptive methods anew at each step, the others by numbers that
stay. Here it is measured, by diagnose.every: norm of the update / (lr x norm of the gradient) of
every tensor. Momentum makes an update of many gradients, so a ratio to one of them moves with any
rule. The upper row is therefore without momentum (beta1 = 0) and weight decay, where the gain is
the rule's scale alone; the lower row is as the optimizers are used.

Eight runs of configs/quickstart.toml with half of its width and a quarter of its batch, one after
the other; a run that has finished in --runs is not made again. It prints a table: of the gains of
all tensors at the last update the median and the span (largest over smallest), and by what factor
a tensor's gain moves through the run (largest over smallest after its first tenth, median over
tensors).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import train_gpt2
from bench.gpu.part import flags
from configs import load
from optim import resolve
from record import inside
from record.inside import Measured
from record.runlog import read_summary

ROOT = Path(__file__).parent.parent
ARMS = {
    "adamw": {"lr": "3e-3"},
    "adam_mini": {"lr": "3e-3", "n_head": "4", "value_blocks": "whole"},
    "sgd": {"lr": "0.3"},
    "sgd_sai": {"lr": "9e-3"},
}
PLAIN = {  # the same without momentum and decay
    "adamw": {"betas": "0.0,0.95"},
    "adam_mini": {"betas": "0.0,0.95"},
    "sgd": {"momentum": "0.0", "nesterov": "false", "lr": "1.0"},
    "sgd_sai": {"momentum": "0.0"},
}
ROWS = ("without momentum and decay", "as used")
COLOURS = {"hidden": "#0a78c2", "embedding": "#d2600a", "vector": "#8c8c8c"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="the figure, .png or .svg")
    parser.add_argument("--runs", type=Path, default=Path("runs/local_gain"), metavar="DIR")
    parser.add_argument("--steps", type=int, default=200, help="updates of each run")
    parser.add_argument("--every", type=int, default=5, help="updates between measurements")
    parser.add_argument("--data", default="data/tokens/stdlib", metavar="DIR", help="token shards")
    options = parser.parse_args(arguments)
    found = {(row, arm): measured(row, arm, options) for row in range(len(ROWS)) for arm in ARMS}
    print(f"{'':28} {'arm':10} {'median':>9} {'span':>9} {'moves by':>9}")
    for (row, arm), each in found.items():
        figures = " ".join(f"{x:9.3g}" for x in summary(each))
        print(f"{ROWS[row]:28} {arm:10} {figures}")
    if options.out:
        draw(found, options.out)
    return 0


def measured(row: int, arm: str, options: argparse.Namespace) -> Measured:
    """What the run of `arm` measured; trains it if it is not there."""
    home = options.runs.resolve() / ("plain", "used")[row]
    keys = {**ARMS[arm], **({} if row else {"weight_decay": "0.0", **PLAIN[arm]})}
    values = {f"optimizer.{key}": value for key, value in keys.items()} | {
        "model.n_embd": 64,
        "train.total_steps": options.steps,
        "train.batch_tokens": 1024,
        "train.micro_batch_size": 4,
        "eval.every": options.steps,
        "eval.tokens": 16384,
        "checkpoint.every": 0,
        "diagnose.every": options.every,
        "data.dir": Path(options.data).resolve(),
        "log.dir": home,
        "log.wandb": "disabled",
    }
    words = flags(values)
    presets = [str(ROOT / f"configs/{x}.toml") for x in ("quickstart", f"optimizer/{arm}")]
    folder = resolve(load([*presets, *words])).directory
    if read_summary(folder) is None and (code := train_gpt2.main([*presets, *words])):
        sys.exit(code)  # the trainer has said why
    result = inside.read(folder)
    if result is None or result.steps.tolist() != [*range(0, options.steps, options.every)]:
        sys.exit(f"error: {folder} was measured at other updates; give another --runs")
    return result


def summary(measured: Measured) -> tuple[float, float, float]:
    """Median and span of the gains at the end, and the factor by which a tensor's gain moves."""
    gains = measured.columns["gain"]
    last, later = gains[-1], gains[len(gains) // 10 :]
    moves = np.nanmax(later, axis=0) / np.nanmin(later, axis=0)
    span = np.nanmax(last) / np.nanmin(last)
    return float(np.nanmedian(last)), float(span), float(np.nanmedian(moves))


def draw(found: dict[tuple[int, str], Measured], out: Path) -> None:
    """A panel for each run, a line for each tensor."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(len(ROWS), len(ARMS), sharex=True, sharey=True)
    for (row, arm), each in found.items():
        ax = axes[row][list(ARMS).index(arm)]
        for i, role in enumerate(each.roles):
            style = {"color": COLOURS[role], "lw": 0.8, "alpha": 0.7}
            ax.plot(each.steps, each.columns["gain"][:, i], **style)
        ax.set_yscale("log")
        ax.grid(alpha=0.25)
        if row == 0:
            ax.set_title(arm)
        if arm == "adamw":
            ax.set_ylabel(f"local gain\n{ROWS[row]}")
        if row == len(ROWS) - 1:
            ax.set_xlabel("update")
    for role, colour in COLOURS.items():
        axes[0][0].plot([], [], color=colour, label=role)
    figure.legend(loc="outside lower center", ncols=len(COLOURS), frameon=False)
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    sys.exit(main())
