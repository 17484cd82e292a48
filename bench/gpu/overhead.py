"""What logging, metrics, data and checkpoints cost beside training."""

from __future__ import annotations

from functools import partial

import numpy as np

from bench import overhead
from bench.gpu.part import TINY, Part, Row, Settings, check, flags, run
from bench.gpu.throughput import base
from bench.throughput import SKIPPED, write_tokens
from configs import load
from record.hardware import version

TABLE, GOAL = "overhead", 1.0  # % of the step's time


def measure(settings: Settings, part: Part) -> None:
    """At the quickstart's size, where a step is short; then the pause for a checkpoint at 124M."""
    part.rows(TABLE, "logging, metrics and waiting for data", lambda: [_overhead(settings)])
    for name, background in (("written while training goes on", True), ("waited for", False)):
        part.rows("checkpoint", name, partial(_pause, settings, background))


def _overhead(settings: Settings) -> Row:
    values = {
        "data.dir": settings.tokens(),
        "train.device": settings.device,
        "checkpoint.every": 0,
        "log.wandb": "offline" if version("wandb") else "disabled",
    }
    values = {**TINY, **values} if settings.tiny else values
    steps = 30 if settings.tiny else 150
    found = overhead.measured(["configs/quickstart.toml", *flags(values)], steps, start=run)
    share, step = overhead.overhead(found), float(np.median(found["step"]))
    expected = "a figure" if settings.tiny else f"below {GOAL:g} % of the step's time"
    log = float(np.median(found["logging and metrics"]))
    text = f"{share:.2f} % of {step:.3g} ms; logging and metrics {log:.3f} ms"
    name = f"quickstart, W&B {values['log.wandb']}"
    return check(name, expected, text, share < GOAL or settings.tiny)


def _pause(settings: Settings, background: bool) -> Row:
    """How long the loop stands still, and whether the update after it takes longer."""
    words, every = base(settings, 131072), 6
    config, folder = load(words), settings.work / "random"
    folder.mkdir(parents=True, exist_ok=True)
    batch, val = config.train.batch_tokens, config.model.block_size * 64
    write_tokens(folder, config, {"train": 4 * batch, "val": val})
    values = {"data.dir": folder, "eval.tokens": val, "checkpoint.every": every}
    given = str(background).lower()
    words += flags(values | {"log.wandb": "disabled", "checkpoint.background": given})
    found = overhead.measured(words, 4 * every, start=run)
    steps = [float(ms) for ms in found["step"]]
    after = [ms for i, ms in enumerate(steps, SKIPPED) if i % every == 0]
    others = [ms for i, ms in enumerate(steps, SKIPPED) if i % every > 2]
    return {
        "pause, ms": float(np.median(found["checkpoint"])),
        "update after it, ms": float(np.median(after)),
        "other updates, ms": float(np.median(others)),
    }
