"""Step time and state against the size of the model, from what bench.optimizer_step has measured.

    python -m bench.optimizer_figures OUT.png FILE.json... [--names NAME...]

The figure of the SGD-SaI paper, with synchronised clocks: milliseconds of a step and GiB of state,
for every optimizer that is in at least two of the files, ours and the published packages. The time
is the ratio of the median to AdamW's, measured in turn, times AdamW's median over all rows of that
size; so a bandwidth that another user changes between two rows is not blamed on the optimizer.
Files of the same size are merged; of an optimizer measured twice, the last row counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.optimizer_step import summary

GIB = 2**30
STYLES = {"ours": {"linestyle": "-", "marker": "o"}, "package": {"linestyle": ":", "marker": "x"}}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of all that were measured")
    options = parser.parse_args(arguments)
    records = [json.loads(file.read_text()) for file in options.files]
    series = {
        key: points
        for key, points in collected(records).items()
        if len(points) > 1 and (not options.names or key[0] in options.names)
    }
    if not series:
        print("error: no optimizer is in files of two sizes", file=sys.stderr)
        return 2
    machines = {f"{r['machine']['device']}, torch {r['machine']['torch']}" for r in records}
    draw(series, "; ".join(sorted(machines)), options.out)
    return 0


def collected(records: list[dict[str, Any]]) -> dict[tuple[str, str], dict[int, Any]]:
    """By name and kind: by number of parameters, the row of the table."""
    series: dict[tuple[str, str], dict[int, Any]] = {}
    for record in records:
        for row in record["rows"]:
            if "error" not in row:
                series.setdefault((row["name"], row["kind"]), {})[row["parameters"]] = row
    return series


def draw(series: dict[tuple[str, str], dict[int, Any]], machine: str, out: Path) -> None:
    """Both panels, with one colour for each optimizer."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    names = list(dict.fromkeys(name for name, _ in series))
    adamw: dict[int, list[float]] = {}
    for points in series.values():
        for size, row in points.items():
            adamw.setdefault(size, []).append(statistics.median(row["adamw_step_seconds"]))
    colours = {name: f"C{i % 10}" for i, name in enumerate(names)}
    for (name, kind), points in series.items():
        sizes = sorted(points)
        style = {**STYLES[kind], "color": colours[name], "linewidth": 1.3, "markersize": 4}
        label = name if kind == "ours" else f"{name} (package)"
        times = [1e3 * summary(points[n])["to_adamw"] * statistics.median(adamw[n]) for n in sizes]
        left.plot([n / 1e6 for n in sizes], times, label=label, **style)
        state = [points[n]["state_bytes"] / GIB for n in sizes]
        right.plot([n / 1e6 for n in sizes], state, **style)
    for axis, label in (
        (left, "step, ms (median, by its ratio to AdamW's)"),
        (right, "state, GiB"),
    ):
        axis.set(xscale="log", yscale="log", ylabel=label)
        axis.grid(alpha=0.3, which="both", linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(f"million parameters; {machine}", fontsize=9)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    sys.exit(main())
