"""Mutation testing: which expression could be wrong without a test that notices?

    python -m tests.mutants                      # all files of SUITES: `make mutants`
    python -m tests.mutants record/metrics.py    # some of them

mutmut changes one expression of a file at a time and runs the tests that SUITES names beside it. A
change that no test notices has survived. It wants a test, or it is equivalent: no user can tell it
from the original. equivalent_mutants.toml lists those, with the reason. mutmut changes neither
decorated functions nor constants of a module, and here it leaves words of errors and help alone.

Exit code 1 if less than 90 % of the mutants of a file that are not equivalent were killed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "mutants"
EQUIVALENT = Path(__file__).parent / "equivalent_mutants.toml"
GOAL = 0.9
SUITES = {
    "data/coinflip.py": ["tests/data/test_coinflip.py"],
    "data/formats.py": ["tests/data/test_shards.py"],
    "data/index.py": ["tests/data/test_index.py", "tests/data/test_shards.py"],
    "data/loader.py": ["tests/data/test_loader.py"],
    "data/permutation.py": ["tests/data/test_permutation.py"],
    "data/prefetch.py": ["tests/data/test_loader.py"],
    "data/shards.py": ["tests/data/test_shards.py"],
    "data/text.py": ["tests/data/test_text.py"],
    "data/vocabulary.py": ["tests/data/test_vocabulary.py"],
    "data/writer.py": ["tests/data/test_writer.py"],
    "record/metrics.py": ["tests/record/test_metrics.py"],
    "record/power.py": ["tests/record/test_power.py"],
    "report/arms.py": ["tests/report/test_arms.py"],
    "report/comparable.py": ["tests/report/test_comparable.py"],
    "report/crossed.py": ["tests/report/test_crossed.py"],
    "report/headline.py": ["tests/report/test_headline.py"],
    "report/judgement.py": ["tests/report/test_judgement.py", "tests/report/test_verdict.py"],
    "report/leaderboard.py": ["tests/report/test_leaderboard.py"],
    "report/ranks.py": ["tests/report/test_ranks.py"],
    "report/speedups.py": ["tests/report/test_speedups.py"],
    "report/statistics.py": ["tests/report/test_statistics.py"],
    "report/verdict.py": ["tests/report/test_verdict.py"],
    "storage/files.py": ["tests/storage/test_files.py"],
    "storage/locks.py": ["tests/storage/test_locks.py"],
    "train_gpt2.py": [
        "tests/oracle/test_evaluation.py",
        "tests/oracle/test_training.py",
        "tests/test_backward.py",
        "tests/test_divergence.py",
        "tests/test_hooks.py::test_goes_on_from_a_checkpoint_to_the_same_bits[sophia_g]",
        "tests/test_hooks.py::test_labels_are_drawn_from_the_models_own_predictions",
        "tests/test_loop.py",
        "tests/test_model.py",
        "tests/test_random_numbers.py",
        "tests/test_train.py::test_a_run_logs_every_named_quantity_at_every_step",
        "tests/test_train.py::test_help_and_print_config_need_no_data",
        "tests/test_train.py::test_schedule_free_is_evaluated_at_its_averaged_point",
        "tests/test_train.py::test_the_record_tells_everything_needed_to_repeat_the_run",
    ],
}
SETTINGS = """[mutmut]
source_paths=
    {room}
also_copy=
    {rest}
only_mutate=
    {file}
do_not_mutate_patterns=
    raise \\w+\\(
    print\\(
    help=
pytest_add_cli_args_test_selection=
    {tests}
pytest_add_cli_args=
    -p
    no:cacheprovider
process_isolation=forkserver
timeout_multiplier=3
"""
KILLED = {1, 3, 24, 36, 152, 255, -24, -11, -9}  # a failed test, an endless loop, a crash


def prepare(file: str) -> Path:
    """A copy of the working tree in build/mutants, with the settings for one file."""
    folder = WORK / file.removesuffix(".py").replace("/", ".")
    shutil.rmtree(folder, ignore_errors=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    room = file.split("/")[0]
    rest = [path.name for path in folder.iterdir() if path.name not in (room, "tests")]
    lists = {"rest": rest, "tests": SUITES[file]}
    joined = {name: "\n    ".join(sorted(values)) for name, values in lists.items()}
    (folder / "setup.cfg").write_text(SETTINGS.format(room=room, file=file, **joined))
    return folder


def mutmut(folder: Path, *arguments: str) -> str:
    """Output of one command of mutmut; one process, so that the machine stays usable."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = "\n".join(done.stdout.split("\r")[-1:] + done.stderr.splitlines()[-9:])
        sys.exit(f"mutmut {' '.join(arguments)} failed in {folder}: {said}")
    return done.stdout


DIFFS = """
import json, sys
from mutmut.mutation.diff_apply import get_diff_for_mutant
print(json.dumps([get_diff_for_mutant(mutant) for mutant in sys.argv[1:]]))
"""


def changes(folder: Path, mutants: list[str]) -> list[tuple[str, str, str]]:
    """(function, lines before, lines after) of each mutant, the lines stripped and joined."""
    command = [sys.executable, "-c", DIFFS, *mutants]
    shown = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    found = []
    for mutant, diff in zip(mutants, json.loads(shown), strict=True):
        lines = diff.splitlines()[2:]
        before, after = (
            " ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
        )
        mangled = mutant.rpartition("__mutmut")[0].rpartition(".")[2]
        function = mangled.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
        found.append((function, before, after or f"without {before}"))
    return found


def score(file: str, equivalent: list[dict[str, str]]) -> tuple[int, int, int, list[str]]:
    """(mutants, killed, equivalent, survivors in words) of one file."""
    folder = prepare(file)
    mutmut(folder, "run", "--max-children", "1")
    codes = json.loads((folder / "mutants" / f"{file}.meta").read_text())["exit_code_by_key"]
    known = {(e["function"], e["becomes"]) for e in equivalent if e["file"] == file}
    alive = changes(folder, [mutant for mutant, code in codes.items() if code not in KILLED])
    survivors = [
        f"{function}\n    - {before}\n    + {after}"
        for function, before, after in alive
        if (function, after) not in known
    ]
    for function, after in known - {(function, after) for function, _, after in alive}:
        print(f"{file}: no mutant survived that is listed as equivalent, {function}: {after}")
    return len(codes), len(codes) - len(alive), len(alive) - len(survivors), survivors


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help=f"some of {', '.join(SUITES)}; all without any")
    files = parser.parse_args().files or list(SUITES)
    if unknown := set(files) - SUITES.keys():
        parser.error(f"no tests are named for {', '.join(unknown)}; valid: {', '.join(SUITES)}")
    equivalent = tomllib.loads(EQUIVALENT.read_text())["mutant"]
    low = []
    for file in files:
        total, killed, same, survivors = score(file, equivalent)
        share = killed / max(1, total - same)
        counts = f"{total} mutants, {killed} killed, {same} equivalent, {len(survivors)} survived"
        print(f"{file:22} {share:6.1%}  {counts}", *survivors, sep="\n  ", flush=True)
        low += [file] if share < GOAL else []
    if low:
        print(f"below {GOAL:.0%}: {', '.join(low)}")
    return bool(low)


if __name__ == "__main__":
    sys.exit(main())
