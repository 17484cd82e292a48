"""Does the verdict call a difference between an arm and itself? Contests that are really run.

    python -m bench.aa --contests 200     # `make aa`; about half an hour on one core

Two arms that differ only in `train.micro_batch_size` are one arm: the sum over the micro-batches
is the same but for rounding, so their float32 weights differ in some bits, and training makes the
differences grow. Each contest has three seeds of its own, paired, and is judged as the report
judges it. A verdict that keeps its promise calls at most 5 % of them better or worse. What was
run is kept in `--out`; the same command runs what is missing.
"""

import argparse
import contextlib
import csv
import io
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scipy import stats

from record import runlog
from record.contest import SMALLEST
from report import verdict

SEEDS = 3  # of a contest
MICRO_BATCHES = {"a": 16, "b": 8}  # sequences
MODEL = {
    "model.n_layer": 1,
    "model.n_head": 2,
    "model.n_embd": 32,
    "model.block_size": 32,
    "train.batch_tokens": 512,
    "train.total_steps": 90,
    "train.device": "cpu",
    "train.dtype": "float32",
    "eval.every": 90,
    "eval.tokens": 4096,
    "optimizer.lr": 3e-2,  # high, so that rounding grows to the size of real noise in 90 updates
    "checkpoint.every": 0,
    "log.wandb": "disabled",
}
LOSS_SEEN = 1e-9  # nats; a smaller difference is printed as none


def final_loss(seed: int, micro_batch: int, flags: Sequence[str] = ()) -> float:
    """Train once, in this process; the final validation loss in nats.

    flags: more of train_gpt2.py's; they win.

    Raises:
        RuntimeError: the run did not finish.
    """
    from train_gpt2 import main as train

    settings = {**MODEL, "train.micro_batch_size": micro_batch, "seed": seed, "data_seed": seed}
    with tempfile.TemporaryDirectory(prefix="aa-") as name:
        words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = train(["configs/quickstart.toml", *words, "--log.dir", name, *flags])
        (folder,) = (path for path in Path(name).iterdir() if path.is_dir())
        summary = runlog.read_summary(folder) or {}
        if code or summary.get("status") != "finished":
            raise RuntimeError(f"seed {seed} did not finish: {printed.getvalue()[-500:]}")
        return float(summary["final_val_loss"])


def run(path: Path, contests: int, flags: Sequence[str] = ()) -> None:
    """Add to the table at `path` what is missing of so many contests."""
    columns = ["contest", "seed", *MICRO_BATCHES]
    done = len(_rows(path))
    if not done:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(columns) + "\n")
    for number in range(done, contests * SEEDS):
        losses = [final_loss(1 + number, size, flags) for size in MICRO_BATCHES.values()]
        with path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(
                [1 + number // SEEDS, 1 + number, *losses]
            )


def _rows(path: Path) -> list[dict[str, str]]:
    """The runs that have been made; a line that was cut off is removed."""
    if not path.exists():
        return []
    text = path.read_text()
    if not text.endswith("\n"):
        path.write_text(text[: text.rfind("\n") + 1])
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def judged(path: Path) -> list[verdict.Comparison]:
    """The verdict of each whole contest in the table."""
    contests: dict[str, list[dict[str, str]]] = {}
    for row in _rows(path):
        contests.setdefault(row["contest"], []).append(row)
    found = []
    for rows in contests.values():
        if len(rows) == SEEDS:
            a, b = (
                {(int(row["seed"]), int(row["seed"])): float(row[arm]) for row in rows}
                for arm in MICRO_BATCHES
            )
            compared = verdict.adjusted({"b": verdict.tested("a", b, a, ())}, SMALLEST)
            found.append(compared["b"])
    return found


def document(comparisons: Sequence[verdict.Comparison]) -> str:
    """What calibration.md says of them."""
    n, calls = len(comparisons), Counter(c.call for c in comparisons)
    wrong = calls["better"] + calls["worse"]
    bound = stats.binomtest(wrong, n, 0.05, alternative="greater")
    interval = stats.binomtest(wrong, n).proportion_ci(0.95, method="exact")
    gaps = [abs(gap) for c in comparisons for gap in c.differences.values()]
    equal = sum(gap < LOSS_SEEN for gap in gaps)
    return (
        f"{n} contests of 2 arms x {SEEDS} seeds, {2 * SEEDS * n} runs: "
        + ", ".join(f"{call} {count}" for call, count in sorted(calls.items()))
        + f".\nCalled better or worse: {wrong} of {n}, {100 * wrong / n:.1f} % "
        f"(95 % Clopper-Pearson {100 * interval.low:.1f} to {100 * interval.high:.1f} %); "
        f"one-sided test of a rate above 5 %: p = {bound.pvalue:.2g}.\n"
        f"Differences of a pair: {equal} of {len(gaps)} none, the largest {max(gaps):.2g} nats.\n"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--contests", type=int, default=200, metavar="N")
    add("--out", type=Path, default=Path("runs/paired_aa/losses.csv"), metavar="FILE.csv")
    options = parser.parse_args()
    if options.contests < 1:
        parser.error(f"--contests {options.contests} should be 1 or more")
    run(options.out, options.contests)
    print(document(judged(options.out)), end="")


if __name__ == "__main__":
    main()
