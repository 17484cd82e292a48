"""Centre the grids of a contest file on the settings that an earlier contest chose.

    python -m bench.centres runs/pilot_a configs/contest/optimizers_small.toml

A grid is moved where its line ends in a comment of the form `# preset: 6e-4`, and the ledger
(tuning.json) has chosen a value of that key for the arm, or for the one before its first hyphen:
adamw-ema has adamw's. Its factors stay, and the comment says where the centre comes from. What was
not tuned to its end is left as it is, with a line. The file is written in place.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from record.contest import Ledger, TunedArm
from record.runlog import RecordError
from report.formats import counted
from storage import write_atomically

NAME = re.compile(r'name = "(?P<name>[^"]+)"')
GRID = re.compile(r'"(?P<key>[\w.]+)" = \[(?P<values>[^\]]*)\] # [\w.-]+: \S+')


def centred(text: str, ledger: Ledger) -> tuple[str, list[str]]:
    """The contest file with its grids moved, and what was done, a line per grid."""
    name, lines, said = "", [], []
    for line in text.splitlines():
        if found := NAME.match(line):
            name = found["name"]
        if found := GRID.match(line):
            chosen = _chosen(ledger, name, found["key"])
            if isinstance(chosen, float):
                line = _moved(found["key"], found["values"], chosen, ledger.contest)
                line += _edge(ledger.arms[_arm(ledger, name)], found["key"])
            said.append(f"{name}: {line if isinstance(chosen, float) else chosen}")
        lines.append(line)
    return "\n".join(lines) + "\n", said


def _arm(ledger: Ledger, name: str) -> str:
    return name if name in ledger.arms else name.partition("-")[0]


def _chosen(ledger: Ledger, name: str, key: str) -> float | str:
    """The best value, or why there is none."""
    tuned = ledger.arms.get(_arm(ledger, name))
    if tuned is None or tuned.best is None or key not in tuned.best:
        return f"{key} was not tuned"
    open_trials = sum(t.candidate and t.status == "missing" for t in tuned.trials)
    if open_trials:
        return f"{counted(open_trials, 'trial')} not run yet"
    return float(tuned.best[key])


def _moved(key: str, values: str, centre: float, source: str) -> str:
    """The line of a grid around `centre`, with the factor that it has."""
    old = [float(word) for word in values.split(",")]
    if len(old) == 1:
        return f'"{key}" = [{_number(centre)}] # {source}: {_number(centre)}'
    factor = (old[-1] / old[0]) ** (1 / (len(old) - 1))
    new = [centre * factor ** (i - (len(old) - 1) / 2) for i in range(len(old))]
    return f'"{key}" = [{", ".join(map(_number, new))}] # {source}: {_number(centre)}'


def _edge(tuned: TunedArm, key: str) -> str:
    return ", at an edge there" if key in tuned.edges else ""


def _number(x: float) -> str:
    """Four digits, as a float of TOML."""
    return repr(float(f"{x:.4g}"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("earlier", type=Path, metavar="FOLDER", help="a contest that was tuned")
    parser.add_argument("contest", type=Path, metavar="CONTEST.toml", help="written in place")
    options = parser.parse_args(arguments)
    try:
        ledger = Ledger.read(options.earlier)
        old = options.contest.read_text(encoding="utf-8")
    except (RecordError, OSError) as error:
        sys.exit(f"error: {error}")
    if ledger is None:
        sys.exit(
            f"error: {options.earlier} has no {Ledger.file_name}; give a tuned contest's folder"
        )
    text, said = centred(old, ledger)
    if not said:
        mark = "a comment such as # preset: 6e-4"
        sys.exit(f"error: {options.contest} has no grid that ends in {mark}; add one")
    write_atomically(options.contest, text)
    print("\n".join(said))


if __name__ == "__main__":
    main()
