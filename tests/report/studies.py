"""Studies in memory, whose val losses fall in straight lines."""

from dataclasses import replace

import numpy as np

from record.sharpness import Neighbourhood, Preconditioned, Sharpness
from report.judgement import judge
from report.run import Run
from report.study import Study
from tests.report.contest_folder import configuration


def a_run(arm, seed, final, *, start=5.5, steps=100, seconds=50.0, role="report", lr=1e-3, **other):
    """A run in memory whose val loss falls in a straight line."""
    at = np.linspace(0, steps, 11)
    step = np.arange(steps, dtype=float)
    config = configuration(arm, seed, steps=steps, every=10, lr=lr)
    options = {
        "name": f"{arm}-{seed}-{lr}", "source": "", "arm": arm, "role": role, "contest": "c",
        "seed": seed, "data_seed": seed, "config": config, "status": "finished", "facts": {},
        "train": {"step": step, "time/train_seconds": (step + 1) * seconds / steps,
                  "tokens": (step + 1) * 4096.0},
        "val": {"step": at, "val/loss": start + (final - start) * at / steps},
        "summary": {"final_val_loss": final, "initial_val_loss": start, "diverged": False,
                    "flops_per_token": 5_745_408},
        "hashes": {"weights": f"w{seed}", "batches": f"b{seed}"},
    }  # fmt: skip
    return Run(**options | other)


def a_study(finals, **other):
    """{arm: {seed: final loss}}; the first arm is the baseline."""
    runs = [a_run(arm, seed, x) for arm, each in finals.items() for seed, x in each.items()]
    return Study(**{"name": "c", "runs": runs, "baseline": next(iter(finals)), "target": None,
                    "arms": list(finals)} | other)  # fmt: skip


def changed(study, arm, seed, **fields):
    runs = [replace(r, **fields) if (r.arm, r.seed) == (arm, seed) else r for r in study.runs]
    return replace(study, runs=runs)


def rows(study, **options):
    return {row.arm: row for row in judge(study, **options).rows}


def measured(step, *, text="t", rescaled=1.0, loss=2.0, keskar=3.0, passes=20, tokens=8192):
    """What `python -m analysis sharpness` finds at a checkpoint."""
    return Sharpness(
        step=step, checkpoint="c", split="train", tokens=tokens, text=text, rescaled=rescaled,
        loss=loss, eigenvalues=(40.0,), trace=500.0, trace_error=12.0,
        preconditioned=Preconditioned(eigenvalue=9000.0, lr=1e-3, limit=38.0),
        not_preconditioned=None, dimensions=100, adaptive=0.02, rho=5e-3, draws=10, passes=passes,
        neighbourhoods=(Neighbourhood(epsilon=1e-3, all_directions=keskar, subspace=0.1),),
        seed=0, device="cpu", torch="2", seconds=1.0)  # fmt: skip


def only_loss(step, loss, *, text="long", tokens=65536, split="train"):
    """What `--eigenvalues 0 --draws 0 --passes 0` leaves."""
    bare = {"eigenvalues": (), "trace": None, "trace_error": None, "preconditioned": None}
    bare |= {"neighbourhoods": (), "adaptive": None, "draws": 0, "split": split}
    return measured(step, text=text, tokens=tokens, passes=0, loss=loss).model_copy(update=bare)


def two_batches():
    """Two optimizers at batches of 512 and 2,048, equal tokens; sgd-long: the updates of sgd-x1."""
    runs, offsets = [], {"adamw-x1": 0.0, "adamw-x4": 0.1, "sgd-x1": 0.3, "sgd-x4": 0.9}
    for arm, offset in (offsets | {"sgd-long": -0.2}).items():
        size = 512 if arm.endswith("x1") else 2048
        steps = 80 if arm == "sgd-long" else 40_960 // size
        for seed in (1, 2, 3):
            run = a_run(arm, seed, 3.0, steps=steps)
            tables = {"optimizer": {"name": arm.partition("-")[0], "lr": 1e-3}}
            tables["train"] = run.config["train"] | {"batch_tokens": size}
            test = 2 + offset + seed / 100 + offset * seed / 1000
            ends = {"final_test_loss": test, "train_test_gap": 0.1 + offset * seed / 10}
            ends |= {"tokens": size * steps, "steps": steps}
            runs.append(replace(run, config=run.config | tables, summary=run.summary | ends))
    declared = {run.arm: ("train.total_steps", "train.batch_tokens") for run in runs}
    arms = list(dict.fromkeys(run.arm for run in runs))
    against = {"sgd-x4": "adamw-x4"}
    return replace(
        a_study({"adamw-x1": {}}), runs=runs, arms=arms, declared=declared, against=against
    )


BASE = {1: 3.300, 2: 3.310, 3: 3.290}
FIVE = {
    "base": BASE,
    "good": {1: 3.281, 2: 3.290, 3: 3.269},
    "bad": {1: 3.342, 2: 3.350, 3: 3.329},
    "same": {1: 3.302, 2: 3.305, 3: 3.293},
}
