"""Does the interval over seeds and text cover the difference that it is for?

    python -m bench.text_coverage     # prints the tables of docs/results/text.md

Contests without any difference, losses x_ib = seed_i + text_b + rest_ib, all normal, at random. An
interval covers if it holds 0: another draw of seeds and of text would have given another mean.

The first table has independent blocks of text, and asks which interval holds; mean squares are
drawn, which have their exact distributions. The second has documents longer than a sequence, and
asks into how many blocks the text may be cut. tests/bench/test_text_coverage.py checks that its
intervals are those of report/text.py.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats

from report.statistics import Floats
from report.text import BLOCKS

SEEDS = (2, 3, 5, 8)
TEXTS = (0, 0.25, 1, 4, 16)  # variance of the mean that is the text's, over that of the seeds
RESTS = (0, 1)  # and the rest's
SEQUENCES = 960
DOCUMENTS = (1, 10, 40, 120, 240)  # their length in sequences
CUTS = (SEQUENCES, 64, 16, BLOCKS)
RULES = (
    "over seeds only",
    "both, n - 1 degrees of freedom",
    "both, Satterthwaite",
    "both, Hillis",
    "both, each with its own t (used)",
)


def t(df: Floats | float) -> Floats:
    """The two-sided 5 % point of Student's distribution."""
    return np.asarray(stats.t.isf(0.025, df))


def half_widths(squares: tuple[Floats, Floats, Floats], n: int, blocks: int) -> list[Floats]:
    """Of each of RULES. squares: mean squares of seeds, text and rest."""
    seeds, text, rest = squares
    size, extra = n * blocks, np.maximum(text - rest, 0)
    both = np.maximum.reduce([seeds + text - rest, seeds, text, rest])
    freedom = (seeds + text - rest) ** 2 / (
        seeds**2 / (n - 1) + text**2 / (blocks - 1) + rest**2 / ((n - 1) * (blocks - 1))
    )
    hillis = (n - 1) * ((seeds + extra) / seeds) ** 2
    return [
        t(n - 1) * np.sqrt(seeds / size),
        t(n - 1) * np.sqrt(both / size),
        t(np.maximum(freedom, n - 1)) * np.sqrt(both / size),
        t(hillis) * np.sqrt((seeds + extra) / size),
        own_t(seeds, extra, n, blocks),
    ]


def own_t(seeds: Floats, extra: Floats, n: int, blocks: int) -> Floats:
    """Half the width of the interval that report/text.py has."""
    return np.sqrt((t(n - 1) ** 2 * seeds + t(blocks - 1) ** 2 * extra) / (n * blocks))


def of_independent_blocks(n: int, contests: int, rng: np.random.Generator) -> list[list[str]]:
    """Lowest coverage of each rule over TEXTS and RESTS, and its median width where both count."""
    lowest, widths = [1.0] * len(RULES), [0.0] * len(RULES)
    for text in TEXTS:
        for rest in RESTS:
            parts = np.array([1.0, text, rest]) * n * BLOCKS  # expected: their share of squares
            expected = parts[0] + parts[2], parts[1] + parts[2], parts[2]
            df = n - 1, BLOCKS - 1, (n - 1) * (BLOCKS - 1)
            drawn = [e * rng.chisquare(k, contests) / k for e, k in zip(expected, df, strict=True)]
            mean = rng.normal(size=contests) * np.sqrt(1 + text + rest)
            halves = half_widths((drawn[0], drawn[1], drawn[2]), n, BLOCKS)
            for i, half in enumerate(halves):
                lowest[i] = min(lowest[i], float(np.mean(np.abs(mean) <= half)))
                if (text, rest) == (1, 0):
                    widths[i] = float(np.median(half)) / np.sqrt(2)
    return [[f"{100 * c:.1f} %", f"{w:.2f}"] for c, w in zip(lowest, widths, strict=True)]


def losses(n: int, length: int, contests: int, rng: np.random.Generator) -> Floats:
    """Differences of contests, (contests, n, SEQUENCES), whose documents have `length` sequences.

    The text's part of the variance of the mean is four times that of the seeds.
    """
    documents = rng.normal(size=(contests, SEQUENCES // length + 2))
    starts = rng.integers(length, size=(contests, 1))
    at = (np.arange(SEQUENCES) + starts) // length
    text = np.take_along_axis(documents, at, axis=1) * np.sqrt(4 * SEQUENCES / length)
    own = rng.normal(size=(contests, n, 1)) * np.sqrt(n)
    return own + text[:, None] + rng.normal(size=(contests, n, SEQUENCES)) * np.sqrt(n * SEQUENCES)


def covered(x: Floats, blocks: int) -> Floats:
    """Whether the interval of each contest over seeds and `blocks` of text holds 0."""
    contests, n, _ = x.shape
    cut = x.reshape(contests, n, blocks, -1).mean(axis=3)
    rows, columns, mean = cut.mean(axis=2), cut.mean(axis=1), cut.mean(axis=(1, 2))
    seeds = blocks * rows.var(axis=1, ddof=1)
    text = n * columns.var(axis=1, ddof=1)
    left = cut - rows[:, :, None] - columns[:, None, :] + mean[:, None, None]
    rest = (left**2).sum(axis=(1, 2)) / ((n - 1) * (blocks - 1))
    return np.abs(mean) <= own_t(seeds, np.maximum(text - rest, 0), n, blocks)


def of_documents(n: int, length: int, contests: int, rng: np.random.Generator) -> list[str]:
    """Coverage of the interval in use, for each of CUTS."""
    found = dict.fromkeys(CUTS, 0.0)
    for done in range(0, contests, 500):  # not all in memory at once
        x = losses(n, length, min(500, contests - done), rng)
        for cut in CUTS:
            found[cut] += float(covered(x, cut).sum())
    return [f"{100 * each / contests:.1f} %" for each in found.values()]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--contests",
        type=int,
        default=4_000,
        metavar="N",
        help="of each cell of the second table (4,000); the first has ten times as many",
    )
    contests, rng = parser.parse_args().contests, np.random.default_rng(1)
    print("| interval |" + "".join(f" {n} seeds | width |" for n in SEEDS))
    print("| --- |" + " ---: | ---: |" * len(SEEDS))
    columns = [of_independent_blocks(n, 10 * contests, rng) for n in SEEDS]
    for rule, *cells in zip(RULES, *columns, strict=True):
        print(f"| {rule} | " + " | ".join(word for cell in cells for word in cell) + " |")
    print("\n| seeds | sequences of a document |" + "".join(f" {cut} blocks |" for cut in CUTS))
    print("| ---: | ---: |" + " ---: |" * len(CUTS))
    for n in (3, 8):
        for length in DOCUMENTS:
            cells = of_documents(n, length, contests, rng)
            print(f"| {n} | {length} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
