"""A contest's folder as `python -m contest` leaves it, written by the real RunLog."""

import json
from pathlib import Path

import numpy as np
import tomli_w

from record.metrics import StreamMetrics, summarize
from record.runlog import RunLog, read_metrics
from record.wandb_mirror import WandbOptions

SHAPE = {"vocab_size": 257, "block_size": 128, "n_layer": 4, "n_head": 4, "n_embd": 128}
PARAMETERS = 842_880
FLOPS_PER_TOKEN = 6 * (PARAMETERS - 128 * 128) + 12 * 4 * 128 * 128
HASH = "0123456789abcdef" * 4
ALONE = {"other_runs": 0, "load_average": 1.0, "gpus": []}


def configuration(arm, seed, *, steps=40, every=10, contest="demo", lr=1e-3, **changes):
    config = {
        "seed": seed,
        "data_seed": seed,
        "model": dict(SHAPE),
        "data": {"dir": "data/tokens"},
        "optimizer": {"name": "adamw", "lr": lr},
        "schedule": {"name": arm},
        "train": {"total_steps": steps, "batch_tokens": 4096, "micro_batch_size": 16},
        "eval": {"every": every, "tokens": 65536},
        "checkpoint": {"every": 100},
        "log": {"dir": "runs", "group": contest, "job_type": arm},
    }
    for key, value in changes.items():
        table, _, name = key.partition("__")
        config[table][name] = value
    return config


def curve(seed, steps, gain, noise=0.002):
    """A falling loss: the same noise for the same seed, so that pairs are correlated."""
    t = np.arange(steps + 1)
    shared = np.random.default_rng(seed).standard_normal()
    return (
        3 + 2.5 * (1 + 10 * t / steps) ** -0.8 - gain * t / steps + 5 * noise * shared * t / steps
    )


def write_run(folder, config, losses, *, own=0.0, hashes=None, status="finished", upto=None,
              step_ms=50.0, rates=None):  # fmt: skip
    """One run: losses of the updates and evaluations 0..steps. Returns its summary."""
    total, every = config["train"]["total_steps"], config["eval"]["every"]
    last = total if upto is None else upto
    rng = np.random.default_rng([config["seed"], len(str(folder))])
    hashes = hashes or {
        "weights": f"{config['seed']:08d}{HASH}",
        "batches": f"b{config['seed']}{HASH}",
    }
    options = WandbOptions(mode="disabled", project="p", name=folder.name)
    log = RunLog(folder, config_toml=tomli_w.dumps(config), config=config, resume_offset=None,
                 wandb=options)  # fmt: skip
    log.record(
        hashes=hashes,
        environment={
            "device": "cpu",
            "versions": {"torch": "2.13.0"},
            "host": "node",
            "git": {"commit": "abc", "dirty": False},
        },
    )
    stream, clock = StreamMetrics(total), 0.0
    for t in range(last + 1):
        if t % every == 0 or t == total:
            log.log(t, {"val/loss": float(losses[t] + own * t / total), "time/eval_seconds": 0.5})
        if t == last:
            break
        loss = float(losses[t] + 0.02 * rng.standard_normal())
        norm = float(1 + 0.1 * rng.standard_normal())
        ms = float(step_ms * (1 + 0.05 * abs(rng.standard_normal())))
        clock += ms / 1000
        log.log(t, {
            "train/loss": loss, "train/grad_norm": norm,
            "train/lr": float(rates[t]) if rates is not None else config["optimizer"]["lr"],
            **stream.update(loss, norm), "time/train_seconds": clock, "time/step_ms": ms,
            "time/optimizer_ms": ms / 10, "time/data_wait_ms": 0.1,
            "tokens": 4096 * (t + 1), "tokens_per_second": 4096 / ms * 1000, "mfu": None,
            "memory/peak_gib": 0.5,
        })  # fmt: skip
    if status == "killed":
        return None
    summary = summarize(read_metrics(folder), total) | {
        "run": folder.name, "parameters": PARAMETERS, "flops_per_token": FLOPS_PER_TOKEN,
        "mean_lr_factor": 0.5, "last_lr_factor": 0.1, "optimizer_state_bytes_per_parameter": 8.0,
    }  # fmt: skip
    log.finish(status, summary)
    log.facts["launches"][-1] |= {"at_start": ALONE, "at_end": ALONE}  # on any machine
    log.record()
    return summary


def write_contest(home, gains, *, seeds=(1, 2, 3), steps=40, every=10, noise=0.002, tuning=False,
                  skip=(), **options):  # fmt: skip
    """Arms with the given gains in final loss; the first is the baseline."""
    home = Path(home)
    home.mkdir(parents=True, exist_ok=True)
    entries, arms, ledger = [], list(gains), {}
    for number, arm in enumerate(arms):
        for seed in seeds:
            config = configuration(arm, seed, steps=steps, every=every, contest=home.name)
            name = f"adamw-{arm}-s{seed}-{number:08x}"
            own = noise * np.random.default_rng([seed, number]).standard_normal()
            entries.append({"id": name, "arm": arm, "role": "report", "seed": seed,
                            "data_seed": seed, "trial": None, "length": None, "after": None,
                            "directory": name, "arguments": []})  # fmt: skip
            if (arm, seed) not in skip:
                rates = 1e-3 * np.linspace(1, 0.1, steps) ** (1 + number / 4)
                write_run(home / name, config, curve(seed, steps, gains[arm]), own=own, rates=rates,
                          step_ms=50 + number, **options)  # fmt: skip
        if tuning:
            ledger[arm] = tune(home, arm, number, gains[arm], steps, every, entries)
    (home / "plan.json").write_text(json.dumps({
        "contest": home.name, "baseline": arms[0], "target": None, "arms": arms, "runs": entries,
        "pending": [], "problems": [],
    }))  # fmt: skip
    if tuning:
        (home / "tuning.json").write_text(json.dumps({
            "contest": home.name, "method": "grid", "sampler": None, "trials_per_arm": 3,
            "seeds": [101], "arms": ledger,
        }))  # fmt: skip
    return home


def tune(home, arm, number, gain, steps, every, entries):
    trials = []
    for rate, loss in ((3e-4, 0.1), (1e-3, 0.0), (3e-3, 0.3)):
        config = configuration(
            arm, 101, steps=steps, every=every, contest=f"{home.name}-tuning", lr=rate
        )
        name = f"adamw-{arm}-s101-{number:04x}{round(rate * 1e6):04x}"
        summary = write_run(home / "tuning" / name, config, curve(101, steps, gain - loss))
        entries.append({"id": name, "arm": arm, "role": "tuning", "seed": 101, "data_seed": 101,
                        "trial": {"optimizer.lr": rate}, "length": None, "after": None,
                        "directory": f"tuning/{name}", "arguments": []})  # fmt: skip
        trials.append({"setting": {"optimizer.lr": rate}, "runs": [name], "status": "finished",
                       "loss": summary["final_val_loss"], "default": rate == 3e-4,
                       "candidate": True})  # fmt: skip
    best = min(trials, key=lambda trial: trial["loss"])
    return {"trials": trials, "best": best["setting"], "best_loss": best["loss"], "edges": [],
            "default": trials[0]["setting"], "default_loss": trials[0]["loss"],
            "gap": trials[0]["loss"] - best["loss"]}  # fmt: skip


def folder_of(home, arm, seed):
    """The folder of one reporting run of a contest."""
    return next(home.glob(f"adamw-{arm}-s{seed}-*"))


def one(study, arm="wsd", seed=1):
    """The only reporting run of an arm and a seed."""
    (run,) = (run for run in study.of(arm) if run.seed == seed)
    return run
