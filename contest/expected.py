"""Does this installation give the numbers it should?

    python -m contest.expected runs/quickstart docs/results/expected.toml           # compare
    python -m contest.expected runs/quickstart docs/results/expected.toml --write   # after a change

The file holds the mean and sample std of the final validation loss of each arm, nats per token, and
how far another machine's mean may lie from it: another version of Python has another library, so
another text, and another machine adds in another order. Exit code 0: all means are within the
tolerance; 1: some are not; 2: user error, reported in one line.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import tomli_w

from configs import ConfigError
from record import runlog
from record.contest import PlanFile

LEAST = 0.02  # nats, for sums in another order


def _planned(home: Path) -> PlanFile:
    """The plan of the contest in `home`.

    Raises:
        ConfigError: there is none.
        RecordError: it is damaged.
    """
    plan = PlanFile.read(home)
    if plan is None:
        raise ConfigError(f"{home} holds no contest; run python -m contest CONTEST.toml first")
    return plan


def _measured(home: Path, plan: PlanFile) -> dict[str, dict[str, float]]:
    """n, mean and sample std of the final validation losses of each arm.

    Raises:
        ConfigError: a reporting run has not finished, or an arm has fewer than two.
    """
    losses: dict[str, list[float]] = {arm: [] for arm in plan.arms}
    for run in plan.runs:
        if run.role != "report":
            continue
        folder = home / run.directory
        summary = runlog.read_summary(folder)
        if not summary or summary["status"] != "finished":
            remedy = "give the contest's command again to finish it"
            raise ConfigError(f"{folder} has not finished; {remedy}")
        losses[run.arm].append(summary["final_val_loss"])
    for arm, values in losses.items():
        if len(values) < 2:
            problem = f"arm '{arm}' has {len(values)} of the 2 reporting runs of a sample std"
            remedy = "give the contest more seeds, or its command again if it still tunes"
            raise ConfigError(f"{problem}; {remedy}")
    return {
        arm: {"n": len(values), "mean": fmean(values), "std": stdev(values)}
        for arm, values in losses.items()
    }


def _header() -> str:
    """The comment at the top of the file."""
    return (
        "# Final validation loss of the contest's arms, nats per token: mean and sample std over\n"
        "# seeds, and the tolerance of the mean. Measured with Python "
        f"{platform.python_version()}, torch {version('torch')}.\n"
    )


def _tolerance(row: dict[str, float]) -> float:
    """Two standard errors: another version of Python has another text, so it is another draw."""
    return round(max(LEAST, 2 * row["std"] / row["n"] ** 0.5), 3)


def _expected(file: Path) -> dict[str, dict[str, float]]:
    """The rows of the file, by arm.

    Raises:
        ConfigError: it is not a file as --write writes it.
        OSError: it cannot be read.
    """
    remedy = "write it anew with --write"
    try:
        arms: Any = tomllib.loads(file.read_text(encoding="utf-8")).get("arms")
    except ValueError as error:
        raise ConfigError(f"{file} is not TOML: {error}; {remedy}") from None
    if not isinstance(arms, dict):
        raise ConfigError(f"{file} has no table [arms]; {remedy}")
    for arm, row in arms.items():
        if not isinstance(row, dict) or not {"mean", "tolerance"} <= row.keys():
            raise ConfigError(f"{file}: arm '{arm}' has no mean or no tolerance; {remedy}")
    return arms


def _compare(have: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> bool:
    """Print a line for each arm; True if all means are within the tolerance.

    Raises:
        ConfigError: the contest lacks an arm.
    """
    good = True
    for arm, row in expected.items():
        if arm not in have:
            raise ConfigError(f"the contest has no arm '{arm}', which is expected")
        mean, wanted, tolerance = have[arm]["mean"], row["mean"], row["tolerance"]
        fits = abs(mean - wanted) <= tolerance
        good &= fits
        numbers = f"{mean:.4f} expected {wanted:.4f}, {mean - wanted:+.4f}"
        print(f"{'ok ' if fits else 'OFF'}  {arm:12} {numbers}, tolerance {tolerance:g}")
    return good


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, or write; returns the exit code."""
    kind = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(
        "python -m contest.expected", description=__doc__, formatter_class=kind
    )
    p.add_argument("home", type=Path, metavar="CONTEST_FOLDER")
    p.add_argument("file", type=Path, metavar="EXPECTED.toml")
    p.add_argument("--write", action="store_true", help="write the file instead of comparing")
    options = p.parse_args(argv)
    try:
        plan = _planned(options.home)
        have = _measured(options.home, plan)
        if options.write:
            arms = {arm: row | {"tolerance": _tolerance(row)} for arm, row in have.items()}
            text = _header() + tomli_w.dumps({"contest": plan.contest, "arms": arms})
            options.file.write_text(text, encoding="utf-8")
            print(f"written {options.file}")
            return 0
        good = _compare(have, _expected(options.file))
    except (ConfigError, runlog.RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not good:
        print("these are not the numbers that this version should give; see docs/contests.md")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
