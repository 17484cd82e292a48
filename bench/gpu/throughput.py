"""Tokens per second and MFU at 124M: ours, and build-nanogpt as shipped and compiled, in turn."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

from bench import throughput
from bench.gpu import build_nanogpt
from bench.gpu.part import TINY, Part, Row, Settings, check, flags, run
from configs import load, size
from record.hardware import peak_flops

MICRO = (64, 32, 16, 8, 4, 2, 1)  # sequences of a micro-batch that are tried
ROUNDS = 2
STEPS = 30
GOAL_MFU, GOAL_SHIPPED, GOAL_COMPILED = 0.50, 1.3, 1.0
TABLE, RATIOS = "code, round", "goal"
PEERS = {"build-nanogpt as shipped": False, "build-nanogpt, compiled": True}


def measure(settings: Settings, part: Part) -> None:
    """All codes in turn, as often as there are rounds; then their ratios."""
    words = base(settings)
    for i in range(1, 2 if settings.tiny else ROUNDS + 1):
        part.rows(TABLE, f"ours, {i}", lambda: ours(words, settings))
        for name, compiled in PEERS.items() if settings.build_nanogpt else ():
            part.rows(TABLE, f"{name}, {i}", partial(peer, words, settings, compiled))
    part.content["tables"].pop(RATIOS, None)
    part.content["done"].pop(f"{RATIOS}: all", None)  # they follow from what is there now
    part.rows(RATIOS, "all", lambda: list(goals(part, settings)))


def base(settings: Settings, batch_tokens: int = 524288) -> list[str]:
    """The run that is measured: GPT-2 124M, in micro-batches that this GPU holds."""
    if settings.tiny:
        values = TINY | {"train.device": settings.device}
        return ["configs/quickstart.toml", *flags(values)]
    words = ["configs/gpt2_124m.toml", "--train.batch_tokens", str(batch_tokens)]
    return [*words, "--train.micro_batch_size", str(fitting(load(words).model))]


def fitting(shape: Any) -> int:
    """Sequences of a micro-batch, at most 64, that fit this GPU also without compiling."""
    import torch

    available = size.FILL * torch.cuda.get_device_properties(0).total_memory
    needs = {n: size.memory(shape, n, 8, bfloat16=True, compiled=False).total for n in MICRO}
    return next((n for n in MICRO if needs[n] < available), 1)


def ours(
    words: list[str],
    settings: Settings,
    program: tuple[str, ...] = ("train_gpt2.py",),
    steps: int = STEPS,
) -> Row:
    """A row of this trainer."""
    steps = min(steps, 14) if settings.tiny else steps
    figures = throughput.measured(words, steps, program=program, start=run)
    mfu = figures["mfu_median"]
    return {
        "ms": figures["step_ms_median"],
        "tokens/s": figures["tokens_per_second"],
        "MFU, %": 100 * mfu if mfu is not None else None,
        "optimizer, ms": figures["optimizer_ms_median"],
        "peak GiB": figures["peak_memory_gib"],
        "warm-up, s": figures["warm_up_seconds"],
        "attention": figures["attention"],
    }


def peer(words: list[str], settings: Settings, compiled: bool) -> Row:
    """A row of build-nanogpt; its MFU is by our formula."""
    assert settings.build_nanogpt
    config = load(words)
    steps = 14 if settings.tiny else STEPS
    row = build_nanogpt.measured(settings.build_nanogpt, config, steps, compiled)
    peak = _peak(settings)
    flops = row["tokens/s"] * size.flops_per_token(config.model)
    return {**row, "MFU, %": 100 * flops / peak if peak else None}


def _peak(settings: Settings) -> float | None:
    import torch

    cuda = settings.device == "cuda"
    return peak_flops(torch.cuda.get_device_name(), "bfloat16") if cuda else None


def goals(part: Part, settings: Settings) -> list[Row]:
    """What is aimed at, and what was found; a tiny model has no goals, only figures."""

    def each(name: str, column: str) -> list[float]:
        found = [part.row(TABLE, f"{name}, {i}") for i in range(1, ROUNDS + 1)]
        return [row[column] for row in found if row and row.get(column) is not None]

    def judged(name: str, goal: float, values: list[float], unit: str = "") -> Row:
        expected = f"at least {goal:g}{unit}" if not settings.tiny else "a figure"
        if not values:
            return check(name, expected, "not measured", None)
        ok = median(values) >= goal or settings.tiny
        return check(name, expected, ", ".join(f"{x:.3g}{unit}" for x in values), ok)

    rows = [judged("MFU of ours", 100 * GOAL_MFU, each("ours", "MFU, %"), " %")]
    for (name, _), goal in zip(PEERS.items(), (GOAL_SHIPPED, GOAL_COMPILED), strict=True):
        pairs = zip(each("ours", "tokens/s"), each(name, "tokens/s"), strict=False)
        rows.append(judged(f"ours / {name}", goal, [a / b for a, b in pairs]))
    return rows
