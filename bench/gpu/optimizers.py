"""Steps of all optimizers: time against the floor, share of a training step, compiled results."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path

from bench import optimizer_step
from bench.gpu.part import Part, Row, Settings
from bench.gpu.reference import against_reference
from bench.gpu.throughput import base, ours
from optim import OPTIMIZERS
from optim.core.base import UpdateRule

FIRST = ("adamw", "muon", "soap", "lion", "lamb", "sgd_sai", "shampoo", "adam_mini")
SHARE = ("adamw", "muon", "soap")  # of a training step
TINY_NAMES = ("adamw", "muon", "soap")


def measure(settings: Settings, part: Part) -> None:
    """Shares first, then steps, the better known first; then compiled against the reference."""
    words = base(settings)
    for name in SHARE[1:2] if settings.tiny else SHARE:
        preset = [words[0], f"configs/optimizer/{name}.toml", *words[1:]]
        part.rows("training step with", name, partial(_share, preset, settings))
    names = list(dict.fromkeys((*FIRST, *OPTIMIZERS)))
    for name in TINY_NAMES if settings.tiny else names:
        part.rows("optimizer", name, partial(_step, name, settings))
    rules = [name for name in names if issubclass(OPTIMIZERS[name], UpdateRule)]  # not torch's
    for name in ("lion",) if settings.tiny else rules:
        work = partial(against_reference, name, settings.device, compiled=True)
        part.rows("compiled, against float64 on the CPU", name, work)


def _share(words: list[str], settings: Settings) -> Row:
    row = ours(words, settings, steps=20)
    part = {"update, % of the step": 100 * row["optimizer, ms"] / row["ms"]}
    return {name: row[name] for name in ("ms", "optimizer, ms", "MFU, %", "peak GiB")} | part


def _step(name: str, settings: Settings) -> Row:
    """One row of bench.optimizer_step."""
    size, steps, warm_up = ("10M", "3", "1") if settings.tiny else ("124M", "30", "5")
    words = [name, "--size", size, "--steps", steps, "--warm-up", warm_up]
    words += ["--plain"] if settings.tiny and settings.device == "cpu" else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        optimizer_step.main([*words, "--json", str(file)])
        (row,) = json.loads(file.read_text())["rows"]
    if "error" in row:
        raise RuntimeError(row["error"])
    figures = optimizer_step.summary(row)
    return {
        "ms": figures["median"],
        "/ AdamW": figures["to_adamw"],
        "/ floor": figures["to_floor"],
        "/ own floor": figures["to_own"],
        "GB/s": figures["gigabytes"],
        "kernels": row["kernels"],
        "state, bytes a parameter": row["state_bytes"] / row["parameters"],
        "compile, s": row["compile_seconds"],
    }
