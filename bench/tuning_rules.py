"""Do further trials at an edge, and more seeds for ties, choose better settings?

    python -m bench.tuning_rules                 # prints the table of docs/contests.md

Contests of four arms are simulated. An arm's loss over the learning rate is a parabola in log2.
Each has a curvature of its own, 0.01 to 0.11 nats per octave squared, and a best rate of its own,
normal around the middle of the grid. Its standard deviation is half an octave, where about three
arms of ten are best at an edge of three rates, as in the tuning runs of
docs/results/schedules_small; or an octave, where less is known of the best rates. A run's
noise is normal; two runs of one seed differ by a standard deviation of 0.0075 nats, as there.

Each rule tunes the same contests from a grid of rates a factor of two apart. The places of further
trials and the choice of ties are those of contest/rounds.py.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contest import rounds
from record.contest import pair_std

ARMS, CURVATURE, PAIR_STD = 4, (0.01, 0.11), 0.0075
OCTAVES = (0.5, 1.0)  # standard deviations of the best rate
KEY = "lr"


@dataclass(frozen=True)
class Rule:
    """How a contest is tuned."""

    seeds: int  # tuning seeds
    extend: int = 0
    ties: int = 0  # tie seeds
    rates: int = 3  # of the grid


SINGLE = [Rule(1), Rule(1, rates=4), Rule(1, rates=5), Rule(1, 1), Rule(1, 2), Rule(1, 0, 1)]
RULES = [*SINGLE, Rule(1, 1, 1), Rule(1, 1, 2)]
RULES += [Rule(2), Rule(2, 1), Rule(2, 1, 1), Rule(3), Rule(3, 1)]


class Arm:
    """One arm of a simulated contest: its true losses, and its noise, the same for every rule."""

    def __init__(self, rng: np.random.Generator, octaves: float) -> None:
        low, high = map(math.log, CURVATURE)
        self.curvature = math.exp(rng.uniform(low, high))
        self.best = rng.normal(0, octaves)
        self.seed = int(rng.integers(2**31))

    def truth(self, rate: float) -> float:
        """Expected loss above that of the best rate of all, nats."""
        return self.curvature * (math.log2(rate) - self.best) ** 2

    def run(self, rate: float, seed: int) -> float:
        """The loss of one run."""
        own = np.random.default_rng([self.seed, seed, round(1e6 * rate)])
        return self.truth(rate) + own.normal(0, PAIR_STD / math.sqrt(2))


def grid(rates: int) -> list[float]:
    """Learning rates a factor of two apart, in units of their middle."""
    return [2 ** (i - (rates - 1) / 2) for i in range(rates)]


def by_loss(losses: dict[float, list[float]], rates: Sequence[float]) -> list[float]:
    """Rates by their mean losses, ascending."""
    return sorted(rates, key=lambda rate: float(np.mean(losses[rate])))


def tune(arms: list[Arm], rule: Rule) -> tuple[list[float], int]:
    """The rate chosen for each arm, and how many runs that took."""
    found: list[dict[float, list[float]]] = [{} for _ in arms]

    def more(at: int, rate: float, seeds: range) -> None:
        found[at].setdefault(rate, []).extend(arms[at].run(rate, seed) for seed in seeds)

    for at in range(len(arms)):
        for rate in grid(rule.rates):
            more(at, rate, range(rule.seeds))
    for number in range(1, rule.extend + 1):
        tried = [[({KEY: rate}, float(np.mean(x))) for rate, x in each.items()] for each in found]
        best = [min(each, key=lambda pair: pair[1])[0] for each in tried]
        places = [(t, b, [KEY]) for t, b in zip(tried, best, strict=True)]
        outward = [next(rounds.outward(*place), None) for place in places]
        if not any(outward):
            break
        for at, place in enumerate(places):
            setting = outward[at] or next(rounds.inward(*place, number))
            more(at, setting[KEY], range(rule.seeds))
    std = pair_std([list(each.values()) for each in found])
    chosen = []
    for at, each in enumerate(found):
        order = by_loss(each, [*each])
        if rule.ties:
            losses = [float(np.mean(each[rate])) for rate in order]
            order = order[: rounds.close(losses, std, rule.seeds)]
        if rule.ties and len(order) > 1:
            for rate in order:
                more(at, rate, range(rule.seeds, rule.seeds + rule.ties))
        chosen.append(by_loss(each, order)[0])
    return chosen, sum(len(x) for each in found for x in each.values())


def draw(contests: int, octaves: float) -> list[list[Arm]]:
    """The arms of simulated contests."""
    rng = np.random.default_rng(0)
    return [[Arm(rng, octaves) for _ in range(ARMS)] for _ in range(contests)]


def regrets(drawn: list[list[Arm]], rule: Rule) -> tuple[np.ndarray, float]:
    """Loss of each arm's chosen rate above that of its best rate, and runs per arm."""
    found, runs = [], 0
    for arms in drawn:
        chosen, count = tune(arms, rule)
        found += [arm.truth(rate) for arm, rate in zip(arms, chosen, strict=True)]
        runs += count
    return np.array(found), runs / len(found)


def table(contests: int) -> str:
    """The table, in Markdown; of two values in a cell, each is for one of OCTAVES."""
    drawn = [draw(contests, octaves) for octaves in OCTAVES]
    plain = [regrets(each, RULES[0])[0] for each in drawn]
    lines = [
        "| rates | tuning seeds | `extend` | `tie_seeds` | runs per arm "
        "| loss above the best rate, mnats | better setting than in the first line, % | worse, % |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for rule in RULES:
        found = [regrets(each, rule) for each in drawn]
        cells = [
            [runs for _, runs in found],
            [1e3 * float(mine.mean()) for mine, _ in found],
            [100 * float(np.mean(x < y)) for (x, _), y in zip(found, plain, strict=True)],
            [100 * float(np.mean(x > y)) for (x, _), y in zip(found, plain, strict=True)],
        ]
        numbers = [" / ".join(f"{x:.1f}" for x in cell) for cell in cells]
        what = map(str, (rule.rates, rule.seeds, rule.extend, rule.ties))
        lines.append(f"| {' | '.join([*what, *numbers])} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contests", type=int, default=2000, metavar="N", help="of four arms")
    print(table(parser.parse_args().contests))


if __name__ == "__main__":
    main()
