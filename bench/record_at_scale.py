"""What planning, status and the report cost for 1,000 runs, on synthetic records.

    python -m bench.record_at_scale FOLDER                  # writes the records once, then measures
    python -m bench.record_at_scale FOLDER --runs 200 --steps 300

The contest has ten arms (the shipped schedules' names) and runs / 10 seeds. Every record is
written by the real RunLog into the folder that the plan gives it, line by line as the trainer
does; only the numbers in it are made up: a power law, noise that a seed shares over all arms, an
offset per arm, one run in a hundred diverged, one in a hundred stopped half-way.

Printed: seconds, seconds of CPU with those of child processes, and peak memory (the largest
resident set of any one of them) of `python -m contest --dry-run`, of `--status` and of
`python -m report`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from contest import file, plan
from contest.job import Job
from record import metrics, runlog
from record.wandb_mirror import WandbOptions

ROOT = Path(__file__).parent.parent
ARMS = ["cosine", "linear", "constant", "wsd", "polynomial", "exponential", "step", "multistep"]
ARMS += ["one_cycle", "cyclic"]
BATCH = 4096  # tokens an update, as in configs/quickstart.toml
SPREAD, PAIRED, STEP = 0.006, 0.01, 0.002  # nats: a run's own, a seed's, between arms


def contest_file(folder: Path, runs: int, steps: int) -> Path:
    """A contest of ten schedules over the quickstart's model."""
    path = folder / "scale.toml"
    arms = "".join(f'[[arm]]\nname = "{name}"\n"schedule.name" = "{name}"\n' for name in ARMS)
    path.write_text(
        f'[contest]\nname = "scale"\nbase = ["{ROOT}/configs/quickstart.toml"]\n'
        f'baseline = "cosine"\nseeds = {list(range(1, runs // len(ARMS) + 1))}\n'
        f'[contest.settings]\n"train.total_steps" = {steps}\n"eval.every" = {steps // 10}\n{arms}'
    )
    return path


def curve(arm: int, seed: int, steps: int) -> np.ndarray:
    """Train losses, nats: seeds shift all arms alike, arms differ by STEP each."""
    shared = np.random.default_rng(seed)
    own = np.random.default_rng([seed, arm])
    level = 2.0 + STEP * arm + PAIRED * shared.normal() + SPREAD * own.normal()
    trend = level + 3.5 * (1 + np.arange(steps + 1) / 20) ** -0.7
    return trend + 0.03 * shared.normal(size=steps + 1)


def write(job: Job, arm: int) -> None:
    """One run's folder."""
    config = job.config
    steps, number = config.train.total_steps, job.seed * len(ARMS) + arm
    losses, rng = curve(arm, job.seed, steps), np.random.default_rng(number)
    fates: dict[int, runlog.Status] = {17: "diverged", 58: "stopped"}
    fate = fates.get(number % 100, "finished")
    end = steps if fate == "finished" else steps // 2
    norms = 0.4 + 0.1 * rng.random(steps)
    clock = np.cumsum(0.2 + 0.01 * rng.random(steps))
    if fate == "diverged":
        losses[end] = np.nan
    off = WandbOptions("disabled", "bench", config.run_name)
    hashes = {"weights": f"w{job.seed:063}", "batches": f"b{job.seed:063}"}
    log = runlog.RunLog(
        job.directory,
        config_toml=config.toml(),
        config=config.table(),
        resume_offset=None,
        wandb=off,
    )
    with log:
        log.record(hashes=hashes, environment={"python": sys.version, "device": "none"})
        stream = metrics.StreamMetrics(steps)
        for step in range(end + (fate == "diverged")):
            if step % config.eval.every == 0:
                log.log(step, {"val/loss": losses[step] + 0.02, "time/eval_seconds": 0.5})
            log.log(step, line(step, losses, norms, clock, stream))
        if fate == "finished":
            log.log(steps, {"val/loss": losses[steps] + 0.02, "time/eval_seconds": 0.5})
        facts = {
            "run": config.run_name,
            "parameters": 850_000,
            "optimizer_state_bytes_per_parameter": 8.0,
            "mean_lr_factor": 0.55,
            "last_lr_factor": 0.1,
        }
        log.finish(fate, metrics.summarize(runlog.read_metrics(job.directory), steps) | facts)


def line(
    step: int,
    losses: np.ndarray,
    norms: np.ndarray,
    clock: np.ndarray,
    stream: metrics.StreamMetrics,
) -> dict[str, Any]:
    """Values of one update, as train_gpt2.py logs them."""
    loss, norm = float(losses[step]), float(norms[step])
    return {
        "train/loss": loss,
        "train/grad_norm": norm,
        "train/lr": 3e-3 * (1 - step / len(losses)),
        **(stream.update(loss, norm) if np.isfinite(loss) else {}),
        "time/train_seconds": float(clock[step]),
        "time/step_ms": 1e3 * float(clock[step] - (clock[step - 1] if step else 0.0)),
        "time/optimizer_ms": 20.0 + norm,
        "time/data_wait_ms": 0.03 * norm,
        "tokens": (step + 1) * BATCH,
        "tokens_per_second": BATCH / 0.205,
        "mfu": None,
        "memory/peak_gib": 0.5,
    }


def records(folder: Path, path: Path) -> int:
    """Write what the plan of `path` lacks; the number of runs."""
    made = plan.make(file.read(path), folder)
    made.write()
    todo = [job for job in made.jobs if not job.directory.exists()]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, todo, [ARMS.index(job.arm) for job in todo], chunksize=8))
    return len(made.jobs)


def measure(name: str, *words: str) -> None:
    """Run a command of this project, print its seconds and memory, and its end if it failed."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, "-m", *words]
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        output.seek(0)
        said = output.read()
    code = os.waitstatus_to_exitcode(status)
    wall, cpu = time.perf_counter() - began, used.ru_utime + used.ru_stime
    print(f"| {name} | {wall:.1f} | {cpu:.1f} | {used.ru_maxrss / 2**20:.2f} | {code} |")
    if code:
        print(said[-2000:])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = contest_file(options.folder, options.runs, options.steps)
    began = time.perf_counter()
    runs = records(options.folder, path)
    size = sum(p.stat().st_size for p in options.folder.rglob("metrics.jsonl"))
    print(
        f"{runs} runs of {options.steps} updates, {size / 2**20:.0f} MiB of metrics.jsonl, "
        f"written in {time.perf_counter() - began:.0f} s\n"
    )
    print("| | seconds | of CPU | peak memory, GiB | exit code |")
    print("| --- | ---: | ---: | ---: | ---: |")
    out = ["--out", str(options.folder)]
    measure("plan (`--dry-run`)", "contest", str(path), "--dry-run", *out)
    measure("`--status`", "contest", str(path), "--status", *out)
    page = str(options.folder / "page")
    measure("report", "report", str(options.folder / "scale"), "--out", page)


if __name__ == "__main__":
    main()
