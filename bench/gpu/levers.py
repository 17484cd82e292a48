"""What each setting is worth at 124M: the baseline, then one change at a time, then it again."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from functools import partial
from typing import Any

from bench.gpu.part import Part, Row, Settings
from bench.gpu.throughput import base, ours
from configs import schema

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
CHANGES: list[tuple[str, Any]] = [  # keys of [train]; those that this version has are measured
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
    """The changes that this version's configuration takes; few on a CPU, where none matters."""
    fields, skipped = schema.Train.model_fields, settings.device == "cpu"
    for key, value in CHANGES:
        known = key in fields and _takes(fields[key], value)
        if known and not (skipped and (key == "compile" or value in ("float32", 8, 16, 32))):
            yield key, value


def _takes(field: Any, value: Any) -> bool:
    """Whether a key of the configuration has this value among those of its type."""

    def plain(kind: Any) -> Iterator[Any]:
        for inner in typing.get_args(kind) or (kind,):
            if inner is kind or not typing.get_args(inner):
                yield inner
            else:
                yield from plain(inner)

    return any(value == each or type(value) is each for each in plain(field.annotation))


def _changed(
    part: Part, words: list[str], settings: Settings, program: tuple[str, ...] = ("train_gpt2.py",)
) -> Row:
    """A row, with its tokens/s as a ratio to the baseline's."""
    row, first = ours(words, settings, program), part.row(TABLE, "baseline")
    return {**row, "/ baseline": row["tokens/s"] / first["tokens/s"] if first else None}
