"""Dinh's point on a run of ours: measures of sharpness over the scale of its weights.

    python -m analysis sharpness RUN --rescale 0.25 0.5 1 2 4
    python -m bench.rescaling RUN --figure docs/results/rescaling.svg

Prints a table in Markdown, and draws each measure relative to the run's own weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from bench.scaling import table as markdown
from record.sharpness import Sharpness, read

MEASURES: dict[str, Callable[[Sharpness], float]] = {
    "loss": lambda x: x.loss,
    "largest eigenvalue": lambda x: x.eigenvalues[0],
    "trace": lambda x: x.trace or 0.0,
    "Keskar at 0.001, %": lambda x: x.neighbourhoods[0].all_directions,
    "in random directions, %": lambda x: x.neighbourhoods[0].subspace,
    "adaptive, nats": lambda x: x.adaptive or 0.0,
}


def table(found: list[Sharpness]) -> str:
    """A row for each scale."""
    rows = [
        [f"{each.rescaled:g}", *(f"{of(each):.4g}" for of in MEASURES.values())] for each in found
    ]
    return markdown(["scale", *MEASURES], rows)


def figure(found: list[Sharpness], path: Path) -> None:
    """Each measure over the scale, relative to that of the weights as they are."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    own = next(each for each in found if each.rescaled == 1)
    scales = [each.rescaled for each in found]
    with mpl.rc_context({"svg.hashsalt": "rescaling", "svg.fonttype": "none", "font.size": 9}):
        fig, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
        for (name, of), marker in zip(MEASURES.items(), "os^vDX", strict=True):
            relative = [of(each) / of(own) for each in found]
            axis.plot(scales, relative, marker=marker, label=name.partition(",")[0])
        axis.set(xscale="log", yscale="log", xlabel="scale of the weights, layer by layer")
        axis.set(ylabel="measure / that of the run's weights")
        axis.set_xticks(scales, [f"{scale:g}" for scale in scales])
        axis.set_yticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
        fig.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(fig)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--figure", type=Path, metavar="FILE.svg")
    options = parser.parse_args()
    measured = read(options.run)
    if not any(each.rescaled != 1 for each in measured):
        parser.error(f"{options.run}: no rescaled weights were measured; see --help")
    last = max(measured, key=lambda each: (each.rescaled != 1, each.step)).setting
    found = [each for each in measured if each.setting[:3] == last[:3]]
    whole = all(x.eigenvalues and x.trace and x.neighbourhoods for x in found)
    if not whole or not any(x.rescaled == 1 for x in found):
        parser.error(f"{options.run}: needs all measures, and those of the weights as they are")
    print(table(found))
    if options.figure:
        figure(found, options.figure)


if __name__ == "__main__":
    main()
