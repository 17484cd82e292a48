"""What each setting is worth at 124M: the baseline, then one change at a time, then it again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from bench.gpu.part import Part, Row, Settings
from bench.gpu.throughput import base, ours

BATCH_TOKENS = 131072  # a quarter of the usual batch: a lever is in the micro-batch
TABLE = "lever"
# The trainer, with another order of attention's kernels; nothing else changes.
ATTENTION = """
import sys
from torch.nn.attention import SDPBackend
from launch import attention
order = [getattr(SDPBackend, name) for name in sys.argv[1].split(",")]
attention.kernels = lambda capability: order
import train_gpt2
sys.exit(train_gpt2.main(sys.argv[2:]))
"""
KERNELS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION")
CHANGES: list[tuple[str, Any]] = [  # keys of [train]
    ("dtype", "bfloat16-weights"),
    ("micro_batch_size", 32),
    ("micro_batch_size", 16),
    ("activation_checkpointing", True),
    ("compile", False),
    ("micro_batch_size", "auto"),
    ("compile", "max-autotune"),
    ("dtype", "float32"),
    ("micro_batch_size", 8),
]


def measure(settings: Settings, part: Part) -> None:
    """The baseline at the beginning and at the end, and each change between them."""
    words = base(settings, BATCH_TOKENS)
    part.rows(TABLE, "baseline", lambda: ours(words, settings))
    if settings.device == "cuda":
        for kernel in KERNELS:
            program = ("-c", ATTENTION, f"{kernel},MATH")
            part.rows(
                TABLE,
                f"attention {kernel.removesuffix('_ATTENTION').lower()}",
                partial(_changed, part, words, settings, program),
            )
    for key, value in changes(settings):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        changed = [*words, f"--train.{key}", text]
        part.rows(TABLE, f"{key} {text}", partial(_changed, part, changed, settings))
    part.rows(TABLE, "baseline again", partial(_changed, part, words, settings))


def changes(settings: Settings) -> Iterator[tuple[str, Any]]:
    """The changes; few on a CPU, where none matters."""
    for key, value in CHANGES:
        slow = key == "compile" or value in ("float32", 8, 16, 32)
        if settings.device != "cpu" or not slow:
            yield key, value


def _changed(
    part: Part, words: list[str], settings: Settings, program: tuple[str, ...] = ("train_gpt2.py",)
) -> Row:
    """A row, with its tokens/s as a ratio to the baseline's."""
    row, first = ours(words, settings, program), part.row(TABLE, "baseline")
    return {**row, "/ baseline": row["tokens/s"] / first["tokens/s"] if first else None}
