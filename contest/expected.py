"""Does this installation give the numbers it should?

    python -m contest.expected runs/quickstart docs/results/expected.toml           # compare
    python -m contest.expected runs/quickstart docs/results/expected.toml --write   # after a change

The file holds mean and sample std of the final validation loss of each arm, nats per token, and how
far from it another machine's mean may lie: its text is another version of Python's own library, its
sums are in another order. Exit code 0: all means are within the tolerance; 1: some are not.
"""

from __future__ import annotations

import argparse
import json
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

LEAST = 0.02  # nats; sums in another order


def losses(home: Path) -> dict[str, list[float]]:
    """Final validation losses of a contest's reporting runs, by arm. Raises ConfigError."""
    plan = runlog.read_json(home / "plan.json")
    if plan is None:
        raise ConfigError(f"{home} holds no contest; run python -m contest CONTEST.toml first")
    found: dict[str, list[float]] = {arm: [] for arm in plan["arms"]}
    for run in plan["runs"]:
        if run["role"] != "report":
            continue
        summary = runlog.read_summary(home / run["directory"])
        if not summary or summary["status"] != "finished":
            raise ConfigError(f"{home / run['directory']} has not finished; the command that runs "
                              "the contest goes on with it")  # fmt: skip
        found[run["arm"]].append(summary["final_val_loss"])
    return found


def measured(home: Path) -> dict[str, dict[str, float]]:
    """n, mean and sample std of each arm."""
    return {
        arm: {"n": len(values), "mean": fmean(values), "std": stdev(values)}
        for arm, values in losses(home).items()
    }


def header() -> str:
    """What the file says of itself."""
    return (
        "# Final validation loss of the contest's arms, nats per token: mean and sample std over\n"
        "# seeds, and the tolerance of the mean. Measured with Python "
        f"{platform.python_version()}, torch {version('torch')}.\n"
    )


def tolerance(row: dict[str, float]) -> float:
    """Two standard errors: another version of Python is another text, so another draw."""
    return round(max(LEAST, 2 * row["std"] / row["n"] ** 0.5), 3)


def compare(have: dict[str, dict[str, float]], expected: dict[str, Any]) -> bool:
    """Print a line for each arm; True where all means are within the tolerance."""
    good = True
    for arm, row in expected["arms"].items():
        if arm not in have:
            raise ConfigError(f"the contest has no arm '{arm}', which is expected")
        off = have[arm]["mean"] - row["mean"]
        fits = abs(off) <= row["tolerance"]
        good &= fits
        print(f"{'ok ' if fits else 'OFF'}  {arm:12} {have[arm]['mean']:.4f} expected "
              f"{row['mean']:.4f}, {off:+.4f}, tolerance {row['tolerance']:g}")  # fmt: skip
    return good


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, or write; returns the exit code."""
    p = argparse.ArgumentParser("python -m contest.expected", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    p.add_argument("home", type=Path, metavar="CONTEST_FOLDER")
    p.add_argument("file", type=Path, metavar="EXPECTED.toml")
    p.add_argument("--write", action="store_true", help="write the file instead of comparing")
    options = p.parse_args(argv)
    try:
        have = measured(options.home)
        if options.write:
            arms = {arm: row | {"tolerance": tolerance(row)} for arm, row in have.items()}
            table = {"contest": json.loads((options.home / "plan.json").read_text())["contest"]}
            text = f"{header()}{tomli_w.dumps(table | {'arms': arms})}"
            options.file.write_text(text, encoding="utf-8")
            print(f"written {options.file}")
            return 0
        good = compare(have, tomllib.loads(options.file.read_text(encoding="utf-8")))
    except (ConfigError, runlog.RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not good:
        print("these are not the numbers that this version should give; see docs/contests.md")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
