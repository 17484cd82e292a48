"""Kill a run at random moments, again and again, and compare its end with an undisturbed one's.

    python -m tests.faults.kills              # 20 kills within one run
    python -m tests.faults.kills --long       # 100
    python -m tests.faults.kills --nproc 2    # under torchrun: SIGKILL to the agent and all ranks

SIGKILL comes in turn at an arbitrary moment of an update, while a checkpoint is being written, and
at one of the moments of tests/faults/dying.py, from the copy of the state to the removal of older
checkpoints. The final weights, optimizer, metric state and metrics.jsonl (columns of time aside)
must be the same bits, and no attempt may begin from a torn checkpoint.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from record.runlog import read_metrics, read_record, read_summary
from tests.faults.dying import MOMENTS
from tests.jobs import (
    assert_same,
    children,
    command,
    finish,
    job,
    kill_group,
    only_run,
    result,
    tiny_shards,
    wait_until,
)


def steps_logged(runs: Path) -> int:
    """Lines of metrics.jsonl so far."""
    try:
        return len((only_run(runs) / "metrics.jsonl").read_text().splitlines())
    except (ValueError, FileNotFoundError):
        return 0


@dataclass
class Outcome:
    """How often it was killed, and how often in the middle of a checkpoint."""

    kills: int = 0
    torn: int = 0
    moments: Counter[str] = field(default_factory=Counter)  # of tests/faults/dying.py
    seconds: float = 0.0


def torment(shards: Path, folder: Path, kills: int, nproc: int = 0, seed: int = 0) -> Outcome:
    """A run in `folder`, killed that often; AssertionError where it ends unlike a calm one."""

    steps = 12 * kills
    length = ["--train.total_steps", str(steps), "--eval.every", "30", "--checkpoint.every", "2"]
    length += ["--model.n_embd", "64"]  # 1.5 MB a checkpoint
    length += ["--diagnose.every", "3"]
    finish(job(command(shards, folder / "calm") + length, nproc), timeout=60 + 12 * kills)
    runs = folder / "killed"
    arguments = command(shards, runs) + length
    rng, outcome, began = random.Random(seed), Outcome(), time.monotonic()
    for attempt in range(kills):
        before = steps_logged(runs)
        if attempt % 3 == 2:
            moment = MOMENTS[attempt // 3 % len(MOMENTS)]
            # at a later checkpoint than its first, so that it gets on
            words = [moment, str(rng.randint(2, 4)), str(rng.random() * 0.02)]
            process = job(["tests.faults.dying", *words, *arguments], nproc, program="-m")
            wait_until(lambda p=process: p.poll() is not None)
            process.communicate()
            assert process.returncode == (1 if nproc else -signal.SIGKILL), "it did not die there"
            outcome.kills, outcome.moments[moment] = outcome.kills + 1, outcome.moments[moment] + 1
            continue
        process = job(arguments, nproc)
        # Some lines further than the last attempt came, so that it gets on.
        target = before + rng.randint(1, 9)
        wait_until(lambda p=process, t=target: steps_logged(runs) >= t or p.poll() is not None)
        if attempt % 3:
            partial = only_run(runs) / "checkpoints" / "partial"
            wait_until(lambda p=process, f=partial: f.exists() or p.poll() is not None, pause=0)
            time.sleep(rng.random() * 0.004)
        else:
            time.sleep(rng.random() * 0.02)
        kill_group(process, children(process.pid))
        outcome.kills += 1
        outcome.torn += (only_run(runs) / "checkpoints" / "partial").exists()
        assert read_summary(only_run(runs)) is None, "it ended before it could be killed"
    finish(job(arguments, nproc))
    assert_same(result(folder / "calm"), result(runs))
    calm, killed = (only_run(folder / name) / "diagnose.jsonl" for name in ("calm", "killed"))
    assert calm.read_bytes() == killed.read_bytes()
    logged = [line["step"] for line in read_metrics(only_run(runs)) if "train/loss" in line]
    assert logged == list(range(steps))
    assert len(read_record(only_run(runs))["launches"]) == kills + 1
    assert not list((only_run(runs) / "checkpoints").glob("*.torn"))  # none was ever begun from
    outcome.seconds = time.monotonic() - began
    return outcome


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="100 kills instead of 20")
    parser.add_argument("--nproc", type=int, default=0, help="ranks under torchrun; 0: plain")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    with tempfile.TemporaryDirectory() as folder:
        kills = 100 if options.long else 20
        shards = tiny_shards(Path(folder) / "tokens")
        outcome = torment(shards, Path(folder), kills, options.nproc, options.seed)
    exact = ", ".join(f"{n} {moment}" for moment, n in outcome.moments.items())
    print(
        f"{outcome.kills} kills, {outcome.torn} of them at any moment of a checkpoint, {exact}: "
        f"the same bits at the end ({outcome.seconds:.0f} s)"
    )


if __name__ == "__main__":
    main()
