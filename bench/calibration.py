"""Does the verdict call differences where there are none, and does the planner keep its word?

    python -m bench.calibration                     # prints the tables of calibration.md
    python -m bench.calibration --figure docs/results/calibration_power.svg
    python -m bench.calibration --from RUNS         # first takes the losses from a folder of runs

Contests are drawn with three kinds of noise. `equal`: independent and normal, all arms alike.
`recorded`: normal, with the covariance of recorded runs (final validation losses of ten schedules,
each trained with the same twelve seeds, docs/results/calibration_runs.csv), so that each arm has
its own variance. `skewed`: the recorded residuals themselves, whole seeds drawn with replacement,
smoothed by a normal kernel; arms are not exchanged, so that skew and tails stay where they are.
Each contest takes its arms, the baseline too, at random from the ten; arms beyond ten repeat some,
with noise of their own.
"""

import argparse
import csv
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from bench import rules
from record.power import ALPHA, smallest_shown
from report import verdict
from report.sources import read
from report.statistics import holm

RUNS = Path(__file__).parents[1] / "docs" / "results" / "calibration_runs.csv"
CONTESTS = 4_000
KINDS = ("equal", "recorded", "skewed")
ARMS = (2, 4, 6, 10, 12)
SEEDS = (3, 5, 8, 10)
KERNEL = 0.5  # standard deviation of the smoothing, in those of the residuals


def save(folder: str, path: Path) -> None:
    """Final validation losses of all finished runs under `folder`, for seeds that all arms have."""
    study = read([folder])
    found = {arm: verdict.values_of(study, arm, "final_val_loss", True) for arm in study.arms}
    common = sorted(set.intersection(*(set(values) for values in found.values())))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["arm", "seed", "data_seed", "final_val_loss"])
        writer.writerows((arm, *pair, found[arm][pair]) for arm in found for pair in common)


def noise(path: Path) -> np.ndarray:
    """Losses less their arm's mean, nats; shape (arms, seeds)."""
    table: dict[str, list[float]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            table.setdefault(row["arm"], []).append(float(row["final_val_loss"]))
    losses = np.array(list(table.values()))
    return losses - losses.mean(axis=1, keepdims=True)


# ------------------------------------------------------------------------------------------- draws


def draw(
    pool: np.ndarray, kind: str, shape: tuple[int, int, int], rng: np.random.Generator
) -> np.ndarray:
    """Losses of contests without a difference, (contests, arms, n); the first is the baseline.

    pool: `noise`. kind: one of KINDS.
    """
    contests, arms, n = shape
    if kind == "equal":
        return rng.standard_normal(shape) * sigma(pool) / math.sqrt(2)
    order = np.argsort(rng.random((contests, len(pool))), axis=1)
    losses = _recorded(pool, kind, contests, n, rng)
    found = np.take_along_axis(losses, order[:, :arms, None], axis=1)
    if (more := arms - len(pool)) > 0:  # the same arms again, with another draw of their own noise
        again = _recorded(pool, kind, contests, n, rng)
        again = again - again.mean(axis=1, keepdims=True) + losses.mean(axis=1, keepdims=True)
        found = np.concatenate([found, np.take_along_axis(again, order[:, :more, None], 1)], axis=1)
    return found


def _recorded(
    pool: np.ndarray, kind: str, contests: int, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Losses of all arms of the pool: (contests, arms of the pool, n)."""
    values, vectors = np.linalg.eigh(np.cov(pool))
    root = vectors * np.sqrt(np.maximum(values, 0))
    normal = np.einsum("ij,cjn->cin", root, rng.standard_normal((contests, len(pool), n)))
    if kind == "recorded":
        return normal
    seeds = rng.integers(0, pool.shape[1], (contests, n))
    residuals = pool[:, seeds].transpose(1, 0, 2) * math.sqrt(pool.shape[1] / (pool.shape[1] - 1))
    return (residuals + KERNEL * normal) / math.sqrt(1 + KERNEL**2)


def unpaired(losses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same contests with seeds of their own for each arm: each arm from another contest."""
    return np.stack([rng.permutation(losses[:, arm]) for arm in range(losses.shape[1])], axis=1)


def sigma(pool: np.ndarray) -> float:
    """Standard deviation of differences between two arms of the pool, as the planner pools it."""
    a, b = np.triu_indices(len(pool), 1)
    return math.sqrt(float(np.mean((pool[a] - pool[b]).var(axis=1, ddof=1))))


# ------------------------------------------------------------------------------------------ shares


def false_calls(pool: np.ndarray, contests: int = CONTESTS) -> list[dict[str, str | int | float]]:
    """% of contests without a difference in which each rule calls one: rows of a table."""
    rows: list[dict[str, str | int | float]] = []
    for kind, arms, n in itertools.product(KINDS, ARMS, SEEDS):
        losses = draw(pool, kind, (contests, arms, n), np.random.default_rng([0, arms, n]))
        shares = {name: _any(rule(losses)) for name, rule in rules.RULES.items()}
        shares["Welch"] = _any(rules.welch(unpaired(losses, np.random.default_rng(1))))
        rows.append({"noise": kind, "arms": arms, "seeds": n, **shares})
    return rows


def _any(called: np.ndarray) -> float:
    """% of contests in which anything is called."""
    return 100 * float(called.any(axis=1).mean())


def power(
    pool: np.ndarray, kind: str, arms: int, n: int, difference: float, *, all_differ: bool = False
) -> dict[str, float]:
    """% of arms that truly differ and are called, by rule. all_differ: every rival, else one."""
    losses = draw(pool, kind, (CONTESTS, arms, n), np.random.default_rng([1, arms, n]))
    rivals = slice(1, None) if all_differ else slice(1, 2)
    losses[:, rivals] -= difference
    shifted = slice(0, None) if all_differ else slice(0, 1)
    return {
        name: 100 * float(rule(losses)[:, shifted].mean()) for name, rule in rules.RULES.items()
    }


def planner(pool: np.ndarray, kind: str, arms: int, n: int, paired: bool) -> tuple[float, float]:
    """The difference that the planner says n seeds show with 80 %, and the % that do."""
    losses = draw(pool, kind, (2 * CONTESTS, arms, n), np.random.default_rng([2, arms, n]))
    spread = sigma(pool)
    if not paired:
        losses = unpaired(losses, np.random.default_rng(3))
        spread = float(losses.std())
    difference = smallest_shown(spread, n, arms=arms, paired=paired) or 0.0
    losses[:, 1] -= difference
    called = (rules.in_use if paired else rules.welch)(losses)
    return difference, 100 * float(called[:, 0].mean())


def false_equivalents(pool: np.ndarray, kind: str, arms: int, n: int) -> float:
    """% of arms called equivalent that differ by just the smallest difference that matters."""
    losses = draw(pool, kind, (CONTESTS, arms, n), np.random.default_rng([4, arms, n]))
    smallest, shares = 3 * sigma(pool), []
    for sign in (1, -1):
        mean, error, df = rules.moderated_tests(rules.gaps_of(losses) + sign * smallest, arms)
        shares.append((np.abs(mean) + stats.t.isf(ALPHA, df) * error < smallest).mean())
    return 100 * float(max(shares))


def truths(arms: int, scale: float) -> dict[str, np.ndarray]:
    """True mean losses for which intervals and ranks must hold; the first arm is the baseline."""
    half = np.where(np.arange(arms) < arms // 2, 0.0, -scale)
    return {
        "all equal": np.zeros(arms),
        "one better": np.where(np.arange(arms) == arms - 1, -scale, 0.0),
        "baseline better": np.where(np.arange(arms) == 0, -scale, 0.0),
        "two groups": half,
        "a ladder": np.linspace(0, scale, arms),
    }


def misses(pool: np.ndarray, kind: str, arms: int, n: int) -> dict[str, float]:
    """% of contests in which a statement is false, for the worst of several truths.

    ranks: any arm's true rank outside its interval. best: a truly best arm not in the set. joint:
    any true difference outside its joint interval, or a wrong call.
    """
    worst = {"ranks": 0.0, "best": 0.0, "joint": 0.0}
    losses = draw(pool, kind, (CONTESTS // 2, arms, n), np.random.default_rng([5, arms, n]))
    a, b = np.triu_indices(arms, 1)
    for scale in (1.5 * sigma(pool), 20 * sigma(pool)):
        for truth in truths(arms, scale).values():
            shifted = losses + truth[None, :, None]
            mean, error, df = rules.moderated_tests(shifted[:, a] - shifted[:, b], arms)
            shown = (holm(rules.p_of(mean, error, df)) < ALPHA) * np.sign(mean)
            above = np.zeros((len(losses), arms), int)  # how many are shown better than each
            below = np.zeros_like(above)
            for k, (i, j) in enumerate(zip(a, b, strict=True)):
                above[:, i] += shown[:, k] > 0
                below[:, i] += shown[:, k] < 0
                above[:, j] += shown[:, k] < 0
                below[:, j] += shown[:, k] > 0
            first = 1 + (truth[:, None] > truth).sum(axis=1)
            last = arms - (truth[:, None] < truth).sum(axis=1)  # they differ where arms tie
            missed = (1 + above > first) | (arms - below < last)
            found = {
                "ranks": missed.any(axis=1),
                "best": (above[:, truth == truth.min()] > 0).any(axis=1),
                "joint": _joint_misses(rules.gaps_of(shifted), truth[1:] - truth[0], arms),
            }
            for name, share in found.items():
                worst[name] = max(worst[name], 100 * float(share.mean()))
    return worst


def _joint_misses(gaps: np.ndarray, truth: np.ndarray, arms: int) -> np.ndarray:
    """Whether any true difference is outside its joint interval, which ends at 0 by Holm."""
    mean, error, df = rules.moderated_tests(gaps, arms)
    called = holm(rules.p_of(mean, error, df)) < ALPHA
    half = stats.t.isf(ALPHA / 2 / gaps.shape[1], df) * error
    outside = np.abs(mean - truth) > half
    wrong = called & (np.sign(mean) != np.sign(truth))
    return np.asarray((outside | wrong).any(axis=1))


# ------------------------------------------------------------------------------------------- pages


def table(columns: Sequence[str], rows: Sequence[Sequence[str | int | float]]) -> str:
    """In Markdown; numbers to one decimal."""
    text = [[f"{x:.1f}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    rule = ["---:" if not isinstance(x, str) else "---" for x in rows[0]]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *text))


def document(pool: np.ndarray) -> str:
    """The tables of docs/results/calibration.md."""
    calls = false_calls(pool)
    names = [*rules.RULES, "Welch"]
    worst: list[list[str | int | float]] = [
        [name, *(max(float(r[name]) for r in calls if r["noise"] == kind) for kind in KINDS),
         *(max(float(r[name]) for r in calls if r["noise"] != "skewed" and r["seeds"] == n)
           for n in SEEDS)]
        for name in names
    ]  # fmt: skip
    spread = sigma(pool)
    powers: list[list[str | int | float]] = []
    for kind, arms, n in itertools.product(("equal", "recorded"), (4, 10), SEEDS):
        difference = 1.3 * (smallest_shown(spread, n) or 0.0)
        one = power(pool, kind, arms, n, difference)
        every = power(pool, kind, arms, n, difference, all_differ=True)
        powers.append([kind, arms, n, *(f"{one[x]:.0f} / {every[x]:.0f}" for x in rules.RULES)])
    planned: list[list[str | int | float]] = []
    for kind, arms, n in itertools.product(KINDS, (2, 4, 10), SEEDS):
        planned.append([kind, arms, n])
        for paired in (True, False):
            difference, share = planner(pool, kind, arms, n, paired)
            planned[-1] += [f"{difference / spread:.2f}", share]
    held: list[list[str | int | float]] = [
        [kind, arms, n, false_equivalents(pool, kind, arms, n),
         *misses(pool, kind, arms, n).values()]
        for kind, arms, n in itertools.product(KINDS, ARMS, (3, 5, 10))
    ]  # fmt: skip
    error = 100 * math.sqrt(ALPHA * (1 - ALPHA) / CONTESTS)
    parts = [
        f"{CONTESTS:,} contests in each cell; limit: 5 % and two standard errors of {error:.2f} "
        f"points, {5 + 2 * error:.2f} %.",
        table(("rule", *KINDS, *(f"{n} seeds" for n in SEEDS)), worst),
        table(("noise", "arms", "seeds", *names), [list(row.values()) for row in calls]),
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

    shown = {"moderated, floor (in use)": "-", "paired t": "--", "sign flips, max-t": ":"}
    sizes = np.linspace(0, 6, 25)
    with mpl.rc_context({"svg.hashsalt": "power", "svg.fonttype": "none", "font.size": 9}):
        fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
        for axis, kind in zip(axes, ("equal", "recorded"), strict=True):
            for color, n in enumerate((3, 5, 10)):
                found = [power(pool, kind, 10, n, float(x) * sigma(pool)) for x in sizes]
                for name, style in shown.items():
                    label = f"{n} seeds, {name}"
                    axis.plot(sizes, [p[name] for p in found], style, c=f"C{color}", label=label)
            axis.axhline(80, c="0.7", lw=0.8, zorder=0)
            axis.set(title=f"{kind} noise", xlabel="difference / std of a pair", xlim=(0, 6))
        axes[0].set(ylabel="% called, one of ten arms differs", ylim=(0, 101))
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3,
                   fontsize=7, frameon=False)  # fmt: skip
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
