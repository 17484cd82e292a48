"""How often rules are wrong, and how often they see what is there: % of simulated contests."""

import itertools
from collections.abc import Sequence

import numpy as np

from bench.calibration import rules
from bench.calibration.noise import KINDS, draw, sigma, unpaired
from record.power import ALPHA, MODERATED_ARMS, smallest_shown
from report.statistics import holm

Cell = str | int | float

CONTESTS = 4_000
ARMS = (2, 3, 4, 6, 10, 12)
SEEDS = (3, 5, 8, 10)
WORST = ("moderated or own (in use)", "paired t")  # rules whose worst baseline is looked for


def false_calls(pool: np.ndarray, contests: int = CONTESTS) -> list[dict[str, Cell]]:
    """% of contests without a difference in which each rule calls one: rows of a table."""
    rows: list[dict[str, Cell]] = []
    for kind, arms, n in itertools.product(KINDS, ARMS, SEEDS):
        losses = draw(pool, kind, (contests, arms, n), np.random.default_rng([0, arms, n]))
        shares = {name: _any(rule(losses)) for name, rule in rules.RULES.items()}
        shares["Welch"] = _any(rules.welch(unpaired(losses, np.random.default_rng(1))))
        rows.append({"noise": kind, "arms": arms, "seeds": n, **shares})
    return rows


def worst_baseline(pool: np.ndarray, kind: str, arms: int, n: int) -> dict[str, float]:
    """% of contests with a false call, for the arm of the pool that is the worst as a baseline."""
    shares: dict[str, float] = {}
    for baseline in range(len(pool)):
        rng = np.random.default_rng([6, arms, n])
        losses = draw(pool, kind, (CONTESTS, arms, n), rng, baseline)
        for name in WORST:
            shares[name] = max(shares.get(name, 0.0), _any(rules.RULES[name](losses)))
    return shares


def _any(called: np.ndarray) -> float:
    """% of contests in which anything is called."""
    return 100 * float(called.any(axis=1).mean())


def power(
    pool: np.ndarray,
    kind: str,
    arms: int,
    n: int,
    difference: float,
    *,
    all_differ: bool = False,
    names: Sequence[str] = tuple(rules.RULES),
) -> dict[str, float]:
    """% of arms that truly differ and are called, by rule. all_differ: every rival, else one."""
    losses = draw(pool, kind, (CONTESTS, arms, n), np.random.default_rng([1, arms, n]))
    rivals = slice(1, None) if all_differ else slice(1, 2)
    losses[:, rivals] -= difference
    shifted = slice(0, None) if all_differ else slice(0, 1)
    return {name: 100 * float(rules.RULES[name](losses)[:, shifted].mean()) for name in names}


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
        tests = rules.tests_in_use(rules.gaps_of(losses) + sign * smallest, arms)
        shares.append((np.abs(tests.mean) + tests.half(2 * ALPHA) < smallest).mean())
    return 100 * float(np.mean(shares))


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
    any true difference outside its joint interval.
    """
    worst = {"ranks": 0.0, "best": 0.0, "joint": 0.0}
    losses = draw(pool, kind, (CONTESTS, arms, n), np.random.default_rng([5, arms, n]))
    (a, b), one = np.triu_indices(arms, 1), np.eye(arms)
    for scale in (1.5 * sigma(pool), 20 * sigma(pool)):
        for truth in truths(arms, scale).values():
            shifted = losses + truth[None, :, None]
            pairs = rules.tests_in_use(shifted[:, a] - shifted[:, b], arms)
            shown = (holm(pairs.p) < ALPHA) * np.sign(pairs.mean)
            above = (shown > 0) @ one[a] + (shown < 0) @ one[b]  # how many are shown better
            below = (shown < 0) @ one[a] + (shown > 0) @ one[b]
            if arms >= MODERATED_ARMS:  # the verdicts count too
                beaten = _beaten(rules.gaps_of(shifted), arms)
                above = np.where(beaten, np.maximum(above, 1), above)
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


def _beaten(gaps: np.ndarray, arms: int) -> np.ndarray:
    """Which arms are called worse, and the baseline if an arm is called better."""
    tests = rules.tests_in_use(gaps, arms)
    called = (holm(tests.p) < ALPHA) * np.sign(tests.mean)
    return np.column_stack([(called < 0).any(axis=1), called > 0])


def _joint_misses(gaps: np.ndarray, truth: np.ndarray, arms: int) -> np.ndarray:
    """Whether any true difference is outside its joint interval.

    The interval of an arm that only a later step of Holm calls ends at 0, and contains it.
    """
    tests = rules.tests_in_use(gaps, arms)
    called = holm(tests.p) < ALPHA
    outside = np.abs(tests.mean - truth) > tests.half(ALPHA / gaps.shape[1])
    wrong = called & (np.sign(tests.mean) == -np.sign(truth)) & (truth != 0)
    return np.asarray((outside | wrong).any(axis=1))
