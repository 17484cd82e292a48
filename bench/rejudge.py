"""Judge a contest anew from its losses, by the rule in use: the table of schedulers.md.

    python -m bench.rejudge configs/contest/schedules_small.toml docs/results/schedules_small.csv

The CSV file has a line for each run: role (report or tuning), arm, seed, optimizer.lr (the tuned
key) and final_val_loss. Nothing is trained: what the table needs besides losses, the factors of the
schedules, comes from the contest file. `against the old rule` is each arm's paired t and Holm.
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from contest.file import Contest, read
from contest.job import resolved, schedule_factors
from record.contest import Ledger, LedgerTrial, TunedArm
from report.formats import interval, probability, signed
from report.judgement import Judgement, judge
from report.leaderboard import Row
from report.run import Run
from report.statistics import holm, paired_t
from report.study import Study

KEY = "optimizer.lr"
HEADER = (
    "| arm | verdict | rank | final val loss | std | difference | 95 % | 95 % joint | p (Holm) "
    "| p (Holm) of the paired t | tuned peak | mean factor | last |\n"
    "| --- | --- | --- | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |"
)
Losses = dict[str, dict[float, dict[int, float]]]  # arm: rate: seed: final validation loss


def losses(path: Path, role: str) -> Losses:
    """The losses of one role."""
    found: Losses = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["role"] == role:
                rates = found.setdefault(row["arm"], {})
                rates.setdefault(float(row[KEY]), {})[int(row["seed"])] = float(
                    row["final_val_loss"]
                )
    return found


def study(contest: Contest, path: Path) -> Study:
    """The contest as the report would read it, as far as losses go."""
    runs = [
        _run(arm, seed, loss)
        for arm, rates in losses(path, "report").items()
        for each in rates.values()
        for seed, loss in each.items()
    ]
    arms = [arm.name for arm in contest.arms]
    tuned = {arm: _tuned(rates) for arm, rates in losses(path, "tuning").items()}
    ledger = Ledger(
        contest=contest.name,
        method="grid",
        sampler=None,
        trials_per_arm=contest.trials,
        seeds=contest.table.tuning_seeds,
        arms=tuned,
    )
    smallest = contest.table.smallest
    return Study(contest.name, runs, contest.table.baseline, None, arms, ledger, smallest=smallest)


def _run(arm: str, seed: int, loss: float) -> Run:
    return Run(
        name=f"{arm}-s{seed}",
        source="",
        arm=arm,
        role="report",
        contest=None,
        seed=seed,
        data_seed=seed,
        config={},
        train={},
        val={"step": np.array([]), "val/loss": np.array([])},
        summary={"final_val_loss": loss, "diverged": False},
        hashes={"weights": f"{seed}", "batches": f"{seed}"},  # equal, as the contest's record says
        facts={},
        status="finished",
    )


def _tuned(rates: Mapping[float, Mapping[int, float]]) -> TunedArm:
    """The best rate, and whether it is the lowest or the highest tried."""
    means = {rate: float(np.mean(list(each.values()))) for rate, each in rates.items()}
    best = min(means, key=lambda rate: means[rate])
    edges = (KEY,) if best in (min(means), max(means)) else ()
    return TunedArm(
        trials=tuple(_trial(rate, each) for rate, each in rates.items()),
        best={KEY: best},
        best_loss=means[best],
        edges=edges,
        default={},
        default_loss=None,
        gap=None,
    )


def _trial(rate: float, each: Mapping[int, float]) -> LedgerTrial:
    return LedgerTrial(
        setting={KEY: rate},
        runs=tuple(f"{rate}-s{seed}" for seed in each),
        loss=float(np.mean(list(each.values()))),
        status="finished",
        default=False,
        candidate=True,
        losses=tuple(each.values()),
    )


def document(contest: Contest, judgement: Judgement) -> str:
    """The headline and the table."""
    old = _paired(judgement.rows)
    lines = [_line(contest, row, old.get(row.arm)) for row in judgement.rows]
    best = f"May be the best: {', '.join(judgement.best)}."
    return "\n".join([judgement.headline, best, "", HEADER, *lines]) + "\n"


def _paired(rows: Sequence[Row]) -> dict[str, float]:
    """p of the ordinary paired t after Holm, by arm."""
    tests = {
        row.arm: paired_t(list(row.comparison.differences.values()))
        for row in rows
        if row.comparison
    }
    p = {arm: test.p for arm, test in tests.items() if test}
    return dict(zip(p, holm(list(p.values())).tolist(), strict=True))


def _line(contest: Contest, row: Row, old: float | None) -> str:
    arm = next(arm for arm in contest.arms if arm.name == row.arm)
    factors = schedule_factors(resolved(tuple(contest.arguments(arm, (1, 1)))))
    c, best = row.comparison, row.tuned.best if row.tuned else None
    cells = [
        row.arm,
        c.call if c else "baseline",
        "" if row.ranks is None else f"{row.ranks[0]}-{row.ranks[1]}",
        f"{row.mean:.4f}",
        f"{row.std:.4f}",
        signed(c.difference) if c else "",
        interval(c.low, c.high, signed) if c else "",
        interval(c.joint_low, c.joint_high, signed) if c else "",
        probability(c.p_holm) if c else "",
        "" if old is None else probability(old),
        (f"{best[KEY]:.1e}" if best else "") + (", edge" if row.tuned and row.tuned.edges else ""),
        f"{np.mean(factors):.3f}",
        f"{factors[-1]:.3g}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contest", type=Path, metavar="CONTEST.toml")
    parser.add_argument("losses", type=Path, metavar="LOSSES.csv")
    options = parser.parse_args()
    contest = read(options.contest)
    print(document(contest, judge(study(contest, options.losses))), end="")


if __name__ == "__main__":
    main()
