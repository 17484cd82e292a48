"""Learning-rate transfer: final loss over the rate at several widths, standard and muP.

    python -m data stdlib
    python -m bench.width [--optimizers adamw sgd_sai muon] [--out docs/results/width.png]

A GPT-2 of 2 layers and 2 heads on bytes of the standard library. Rates lie a factor of 3 apart and
go on until there are two of them on each side of the best, one at widths above the base. Runs come
one after the other; one that has finished in --runs is not made again, so several programs may
share the work by --optimizers and --widths. At the base width, with heads of 64, muP is the
standard parametrization to the bit: that run is made once.

It prints the final val loss at each rate, and the best rate: where a parabola through the best
point and its neighbours, over the logarithm of the rate, is lowest.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import train_gpt2
from bench.gpu.part import flags
from configs import load
from optim import resolve
from record.runlog import read_summary

ROOT = Path(__file__).parent.parent
WIDTHS = (64, 128, 256, 512)
BASE = 128
START = {"adamw": 3e-3, "sgd_sai": 9e-3, "muon": 9e-3}
FACTOR = 3
OWN: dict[str, dict[str, Any]] = {
    "muon": {"optimizer.matmul_dtype": "bfloat16"},  # a third of the time, as on a GPU
    "sgd_sai": {"train.grad_clip": 0.0},  # its rule holds for gradients as they are
}
PARAMETRIZATIONS = ("standard", "mup")
COLOURS = ("#9ecae1", "#4a98c9", "#1764ab", "#08306b")
Curve = dict[float, float]  # final val loss by rate; infinite: it diverged


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="the figure, .png or .svg")
    parser.add_argument("--runs", type=Path, default=Path("runs/width"), metavar="DIR")
    parser.add_argument("--optimizers", nargs="+", choices=START, default=list(START))
    parser.add_argument("--widths", nargs="+", type=int, choices=WIDTHS, default=WIDTHS)
    parser.add_argument("--steps", type=int, default=120, help="updates of each run (%(default)s)")
    parser.add_argument("--data", default="data/tokens/stdlib", metavar="DIR", help="token shards")
    options = parser.parse_args(arguments)
    found: dict[tuple[str, str, int], Curve] = {}
    for arm in options.optimizers:
        for width in options.widths:
            for kind in PARAMETRIZATIONS:
                found[arm, kind, width] = curve = swept(arm, kind, width, options)
                print(line(arm, kind, width, curve), flush=True)
    if options.out:
        draw(found, options.out)
    return 0


def swept(arm: str, kind: str, width: int, options: argparse.Namespace) -> Curve:
    """Losses by rate, ascending, with enough rates on each side of the best."""
    curve: dict[int, float] = {}  # by the power of FACTOR
    margin = 2 if width <= BASE else 1
    missing = [0]
    while missing:
        for power in missing:
            curve[power] = final_loss(arm, kind, width, _rate(arm, power), options)
        lowest = min(curve, key=lambda power: curve[power])
        around = range(lowest - margin, lowest + margin + 1)
        missing = [power for power in around if power not in curve]
    return {_rate(arm, power): curve[power] for power in sorted(curve)}


def _rate(arm: str, power: int) -> float:
    """The rate that lies `power` factors above the arm's first one."""
    return float(f"{START[arm] * FACTOR**power:.6g}")


def final_loss(arm: str, kind: str, width: int, rate: float, options: argparse.Namespace) -> float:
    """The val loss of a run at its end; trains it if it is not there."""
    mup = {"model.parametrization": "mup", "model.base_n_embd": BASE}
    values = {
        "optimizer.lr": rate,
        **OWN.get(arm, {}),
        "model.n_layer": 2,
        "model.n_head": 2,
        "model.n_embd": width,
        **(mup if kind == "mup" and width != BASE else {}),
        "train.total_steps": options.steps,
        "train.batch_tokens": 256,
        "train.micro_batch_size": 2,
        "eval.every": options.steps,
        "eval.tokens": 4096,
        "checkpoint.every": 0,
        "data.dir": Path(options.data).resolve(),
        "log.dir": options.runs.resolve(),
        "log.wandb": "disabled",
        "log.print_every": options.steps,
    }
    presets = [str(ROOT / f"configs/{x}.toml") for x in ("quickstart", f"optimizer/{arm}")]
    words = [*presets, *flags(values)]
    folder = resolve(load(words)).directory
    if read_summary(folder) is None and train_gpt2.main(words) not in (0, 3):
        sys.exit(1)  # the trainer has said why
    summary = read_summary(folder) or {}
    return float(summary["final_val_loss"]) if summary["status"] == "finished" else math.inf


def best(curve: Curve) -> float:
    """The rate with the lowest loss, by a parabola unless a neighbour diverged."""
    rates, losses = list(curve), list(curve.values())
    i = int(np.argmin(losses))
    near = np.log(rates[i - 1 : i + 2]), losses[i - 1 : i + 2]
    if len(near[1]) < 3 or not np.isfinite(near[1]).all():
        return rates[i]
    a, b, _ = np.polyfit(*near, 2)
    return float(np.exp(-b / (2 * a)))


def line(arm: str, kind: str, width: int, curve: Curve) -> str:
    """Losses by rate, and the best rate."""
    losses = "  ".join(f"{rate:g}: {loss:.3f}" for rate, loss in curve.items())
    return f"{arm:8} {kind:9} {width:4}   {losses}   best {best(curve):.3g}"


def draw(found: dict[tuple[str, str, int], Curve], out: Path) -> None:
    """A panel for each optimizer and parametrization, a curve for each width."""
    arms = list(dict.fromkeys(arm for arm, _, _ in found))
    figure = Figure(figsize=(3.6 * len(arms), 5.6), layout="constrained")
    axes = figure.subplots(2, len(arms), sharex="col", sharey="col", squeeze=False)
    for (arm, kind, width), curve in found.items():
        ax = axes[PARAMETRIZATIONS.index(kind)][arms.index(arm)]
        colour = COLOURS[WIDTHS.index(width)]
        ax.plot(list(curve), list(curve.values()), marker="o", ms=3, color=colour, label=width)
        lowest = min(curve, key=lambda rate: curve[rate])
        ax.plot([lowest], [curve[lowest]], marker="o", ms=8, color=colour, fillstyle="none")
        ax.set_xscale("log")
        ax.grid(alpha=0.25)
        ax.set_title(f"{arm}, {kind}", fontsize=10)
        if arm == arms[0]:
            ax.set_ylabel("final val loss, nats per byte")
        if kind == PARAMETRIZATIONS[-1]:
            ax.set_xlabel("optimizer.lr")
    for column, arm in enumerate(arms):  # what has diverged leaves the rest its room
        losses = [x for (a, _, _), c in found.items() if a == arm for x in c.values()]
        low = min(losses)
        axes[0][column].set_ylim(low - 0.05, min(low + 1.5, max(x for x in losses if x < math.inf)))
    axes[0][0].legend(title="width", frameon=False, fontsize=8)
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    sys.exit(main())
