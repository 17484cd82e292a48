"""Does the verdict call differences where there are none, and does the planner keep its word?

python -m bench.calibration                     # prints the tables of calibration.md
python -m bench.calibration --figure docs/results/calibration_power.svg
python -m bench.calibration --from RUNS         # first takes the losses from a folder of runs
"""

import argparse
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.calibration import rules
from bench.calibration.checks import (
    ARMS,
    CONTESTS,
    SEEDS,
    WORST,
    Cell,
    false_calls,
    false_equivalents,
    misses,
    planner,
    power,
    worst_baseline,
)
from bench.calibration.noise import KINDS, RUNS, noise, save, sigma
from record.power import ALPHA, smallest_shown

Lines = list[list[Cell]]
TAME = KINDS[:-1]  # without a wild arm, on which no planner could count


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """In Markdown; numbers to one decimal."""
    text = [[f"{x:.1f}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    rule = ["---:" if not isinstance(x, str) else "---" for x in rows[0]]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *text))


def document(pool: np.ndarray) -> str:
    """The tables of docs/results/calibration.md."""
    calls = false_calls(pool)
    names = [*rules.RULES, "Welch"]
    worst: Lines = [
        [
            name,
            *(max(float(r[name]) for r in calls if r["noise"] == kind) for kind in KINDS),
            *(
                max(float(r[name]) for r in calls if r["noise"] in TAME[:2] and r["seeds"] == n)
                for n in SEEDS
            ),
        ]
        for name in names
    ]
    spread = sigma(pool)
    powers: Lines = []
    for kind, arms, n in itertools.product(("equal", "recorded", "wild"), (4, 10), SEEDS):
        difference = 1.3 * (smallest_shown(spread, n) or 0.0)
        one = power(pool, kind, arms, n, difference)
        every = power(pool, kind, arms, n, difference, all_differ=True)
        powers.append([kind, arms, n, *(f"{one[x]:.0f} / {every[x]:.0f}" for x in rules.RULES)])
    planned: Lines = []
    for kind, arms, n in itertools.product(TAME, (2, 4, 10), SEEDS):
        planned.append([kind, arms, n])
        for paired in (True, False):
            difference, share = planner(pool, kind, arms, n, paired)
            planned[-1] += [f"{difference / spread:.2f}", share]
    held: Lines = [
        [
            kind,
            arms,
            n,
            false_equivalents(pool, kind, arms, n),
            *misses(pool, kind, arms, n).values(),
        ]
        for kind, arms, n in itertools.product(TAME, ARMS, (3, 5, 10))
    ]
    baselines: Lines = [
        [kind, arms, n, *worst_baseline(pool, kind, arms, n).values()]
        for kind, arms, n in itertools.product(TAME[1:], (2, 4, 10), (3, 5, 10))
    ]
    error = 100 * math.sqrt(ALPHA * (1 - ALPHA) / CONTESTS)
    parts = [
        f"{CONTESTS:,} contests in each cell; limit: 5 % and two standard errors of {error:.2f} "
        f"points, {5 + 2 * error:.2f} %.",
        table(("rule", *KINDS, *(f"{n} seeds" for n in SEEDS)), worst),
        table(("noise", "arms", "seeds", *names), [list(row.values()) for row in calls]),
        table(("noise", "arms", "seeds", *WORST), baselines),
        table(("noise", "arms", "seeds", *rules.RULES), powers),
        table(
            ("noise", "arms", "seeds", "pairs: difference / std", "seen, %", "no pairs", "seen, %"),
            planned,
        ),
        table(("noise", "arms", "seeds", "equivalent", "ranks", "best", "joint"), held),
    ]
    return "\n\n".join(parts) + "\n"


def figure(pool: np.ndarray, path: Path) -> None:
    """Power against the difference, ten arms, one of which differs."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = {"moderated or own (in use)": "-", "paired t": "--"}
    sizes = np.linspace(0, 6, 25)
    with mpl.rc_context({"svg.hashsalt": "power", "svg.fonttype": "none", "font.size": 9}):
        fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
        for axis, kind in zip(axes, ("equal", "recorded"), strict=True):
            for color, n in enumerate((3, 5, 10)):
                found = [
                    power(pool, kind, 10, n, float(x) * sigma(pool), names=list(shown))
                    for x in sizes
                ]
                for name, style in shown.items():
                    label = f"{n} seeds, {name}"
                    axis.plot(sizes, [p[name] for p in found], style, c=f"C{color}", label=label)
            axis.axhline(80, c="0.7", lw=0.8, zorder=0)
            axis.set(title=f"{kind} noise", xlabel="difference / std of a pair", xlim=(0, 6))
        axes[0].set(ylabel="% called, one of ten arms differs", ylim=(0, 101))
        fig.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=3,
            fontsize=7,
            frameon=False,
        )
        fig.savefig(path, metadata={"Date": None})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--from", dest="folder", help="take the losses from the runs in this folder")
    add("--figure", type=Path, metavar="FILE.svg", help="draw the power instead")
    options = parser.parse_args()
    if options.folder:
        save(options.folder, RUNS)
    if options.figure:
        figure(noise(RUNS), options.figure)
        return
    print(document(noise(RUNS)), end="")


if __name__ == "__main__":
    main()
