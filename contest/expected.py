"""Does this installation give the numbers it should?

    python -m contest.expected runs/quickstart docs/results/expected.toml           # compare
    python -m contest.expected runs/quickstart docs/results/expected.toml --write   # after a change

The file holds the final validation loss of every run, nats per token, the hashes of what each run
began with, and the machine. Runs are compared seed by seed:

- on the same kind of processor, with the same versions and threads: equal to 1e-6;
- elsewhere, where sums are added in another order: the mean difference of an arm's seeds lies
  within the file's tolerance;
- of another text (another version of Python has another library) or other initial weights (another
  version of torch may draw others): not at all, and a line says so.

Exit code 0: as expected; 1: not; 2: user error, reported in one line; 3: not comparable.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import tomli_w
from pydantic import Field, ValidationError

from configs import ConfigError
from configs.validation import Strict
from record import runlog
from record.contest import PlanFile, PlannedRun

EQUAL = 1e-6  # nats; the same program on the same kind of machine
# Nats, of an arm's mean over seeds. The nine runs of configs/contest/quickstart.toml, computed once
# more with AVX2 in place of AVX-512, ended 0.017 apart (root mean square; 0.042 at most), so a mean
# of three has a standard error of 0.01, and two of these are allowed. The arms' own means ended
# 0.002, 0.006 and 0.002 apart; those of check_small.toml, ten times as long, 0.002 (AdamW), 0.00005
# (Muon) and 0.008 (SGD).
TOLERANCE = 0.02
SAME_DIGITS = ("cpu", "instructions", "python", "torch", "device", "threads", "world_size")

EXIT = {"equal": 0, "off": 1, "not comparable": 3}


class Result(Strict):
    """One run: what it began with, and where it ended."""

    loss: float  # final val loss, nats per token
    weights: str  # hashes, as in record.json
    batches: str


class Expected(Strict):
    """The file."""

    contest: str
    tolerance: float = Field(gt=0)  # nats, on another kind of machine
    machine: dict[str, Any]  # SAME_DIGITS of the runs
    arms: dict[str, dict[str, Result]]  # by arm, by seed; SEED-DATA_SEED where they differ


def _measured(home: Path) -> Expected:
    """What the contest in `home` has given.

    Raises:
        ConfigError: there is no contest, a reporting run has not finished, or the runs were made on
            different machines.
        RecordError: a record is damaged.
    """
    plan = PlanFile.read(home)
    if plan is None:
        raise ConfigError(f"{home} holds no contest; run python -m contest CONTEST.toml first")
    arms: dict[str, dict[str, Result]] = {arm: {} for arm in plan.arms}
    machines: list[dict[str, Any]] = []
    for run in plan.runs:
        if run.role == "report":
            result, machine = _result(home, run)
            data = "" if run.data_seed == run.seed else f"-{run.data_seed}"
            arms[run.arm][f"{run.seed}{data}"] = result
            machines.append(machine)
    if plan.pending or not machines:
        raise ConfigError(f"{home} still tunes; give the contest's command again to finish it")
    if any(machine != machines[0] for machine in machines):
        raise ConfigError(f"the runs in {home} come from different machines; run it in one place")
    return Expected(contest=plan.contest, tolerance=TOLERANCE, machine=machines[0], arms=arms)


def _result(home: Path, run: PlannedRun) -> tuple[Result, dict[str, Any]]:
    """One run, and the machine that it ended on."""
    folder = home / run.directory
    summary, record = runlog.read_summary(folder), runlog.read_record(folder)
    if not summary or not record or summary["status"] != "finished":
        raise ConfigError(
            f"{folder} has not finished; give the contest's command again to finish it"
        )
    environment = record["launches"][-1]["environment"]
    known = environment | environment["versions"]
    hashes = record["hashes"]
    result = Result(
        loss=summary["final_val_loss"], weights=hashes["weights"], batches=hashes["batches"]
    )
    return result, {name: known[name] for name in SAME_DIGITS if known.get(name) is not None}


def _read(file: Path) -> Expected:
    """The file.

    Raises:
        ConfigError: it is not a file as --write writes it.
        OSError: it cannot be read.
    """
    remedy = "write it anew with --write"
    try:
        return Expected.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{file}: {where}: {first['msg']}; {remedy}") from None
    except ValueError as error:
        raise ConfigError(f"{file} is not TOML: {error}; {remedy}") from None


def _compare(have: Expected, wanted: Expected) -> str:
    """Print a line for each arm, and why, if they cannot be compared; returns a key of EXIT.

    Raises:
        ConfigError: the contest lacks an arm or a seed.
    """
    pairs = {arm: _pairs(arm, have.arms, seeds) for arm, seeds in wanted.arms.items()}
    for what, key in {"another text": "batches", "other initial weights": "weights"}.items():
        if any(getattr(a, key) != getattr(b, key) for each in pairs.values() for a, b in each):
            print(f"not comparable: {what} than {_words(wanted.machine)}; this is")
            print(f"{_words(have.machine)}. Its numbers are not checked.")
            return "not comparable"
    same = have.machine == wanted.machine
    limit = EQUAL if same else wanted.tolerance
    which = "the machine of the file" if same else "another machine than the file's"
    print(f"{which}: {_words(have.machine)}")
    good = True
    for arm, each in pairs.items():
        gaps = [a.loss - b.loss for a, b in each]
        worst, mean = max(gaps, key=abs), fmean(gaps)
        fits = abs(worst if same else mean) <= limit
        good &= fits
        word, what = "ok " if fits else "OFF", "of a seed" if same else "in the mean"
        numbers = f"mean {mean:+.6f}, at most {worst:+.6f} nats over {len(each)} seeds"
        print(f"{word}  {arm:12} {numbers}; {limit:g} {what} allowed")
    return "equal" if good else "off"


def _pairs(
    arm: str, have: Mapping[str, Mapping[str, Result]], wanted: Mapping[str, Result]
) -> list[tuple[Result, Result]]:
    """(here, expected) of each seed of an arm."""
    if arm not in have:
        raise ConfigError(f"the contest has no arm '{arm}', which is expected")
    if lacking := sorted(wanted.keys() - have[arm].keys()):
        raise ConfigError(f"arm '{arm}' has no run with seed {lacking[0]}, which is expected")
    return [(have[arm][seed], result) for seed, result in wanted.items()]


def _words(machine: Mapping[str, Any]) -> str:
    """A machine in one line."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())


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
        have = _measured(options.home)
        if options.write:
            text = f"# {(__doc__ or '').splitlines()[0]} See contest/expected.py.\n"
            options.file.write_text(text + tomli_w.dumps(have.model_dump()), encoding="utf-8")
            print(f"written {options.file}")
            return 0
        found = _compare(have, _read(options.file))
    except (ConfigError, runlog.RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if found == "off":
        print("these are not the numbers that this version should give; see docs/contests.md")
    return EXIT[found]


if __name__ == "__main__":
    sys.exit(main())
