"""Memory of the four sizes: what configs/size.py counts, and what a run needs at most."""

from __future__ import annotations

from functools import partial

from bench import throughput
from bench.gpu.part import TINY, Part, Row, Settings, check, flags, run
from configs import load, size

SIZES = ("124m", "350m", "774m", "1558m")
STATE_BYTES = 8  # a parameter, of AdamW
TOLERANCE = 0.15  # of what is counted
TABLE = "memory, GiB"
STEPS = 3


def measure(settings: Settings, part: Part) -> None:
    """A few updates at each size, with the micro-batch of its preset or the largest that fits."""
    if settings.tiny and settings.device == "cpu":
        part.rows(TABLE, "tiny", partial(_of_a_process, settings))
        return
    for name in ("tiny",) if settings.tiny else SIZES:
        part.rows(TABLE, name, partial(_on_a_gpu, name, settings))


def _words(name: str, settings: Settings) -> list[str]:
    if settings.tiny:
        return ["configs/quickstart.toml", *flags(TINY | {"train.device": settings.device})]
    model = f"configs/model/gpt2_{name}.toml"
    return ["configs/gpt2_124m.toml", *([] if name == "124m" else [model])]


def _on_a_gpu(name: str, settings: Settings) -> Row:
    """What the allocator gave at most, against the count; the context is not in either."""
    import torch

    words = _words(name, settings)
    config = load(words)
    micro = config.train.micro_batch_size
    limit = 0.9 * torch.cuda.get_device_properties(0).total_memory / size.GIB
    while micro > 1 and _counted(words, micro) > limit:
        micro //= 2
    counted = _counted(words, micro)
    if counted > limit:
        return check(name, f"{counted:.3g} by counting", "more than this GPU has", None)
    values = {
        "train.micro_batch_size": micro,
        "train.batch_tokens": 2 * micro * config.model.block_size,
    }
    figures = throughput.measured([*words, *flags(values)], STEPS, start=run, skipped=0)
    return _compared(f"{name}, {micro} sequences", counted, figures["peak_memory_gib"])


def _of_a_process(settings: Settings) -> Row:
    """On a CPU the difference that micro-batches make: Python and torch are in both runs."""
    words = _words("tiny", settings)
    words += flags({"model.vocab_size": 2048, "train.batch_tokens": 512 * 32})
    peaks, counts = [], []
    for micro in (8, 512):
        given = [*words, "--train.micro_batch_size", str(micro)]
        peaks.append(throughput.measured(given, STEPS, start=run, skipped=0)["peak_memory_gib"])
        counts.append(_counted(words, micro, bfloat16=False, compiled=False))
    return _compared("512 sequences more than 8", counts[1] - counts[0], peaks[1] - peaks[0])


def _counted(words: list[str], micro: int, gpu: bool = True) -> float:
    shape = load(words).model
    memory = size.memory(shape, micro, STATE_BYTES, bfloat16=gpu, compiled=gpu)
    return memory.total / size.GIB


def _compared(name: str, counted: float, measured: float) -> Row:
    ratio = measured / counted
    expected = f"{counted:.3g} by counting, to {TOLERANCE:.0%}"
    found = f"{measured:.3g}, {ratio:.2f} of it"
    return check(name, expected, found, abs(ratio - 1) <= TOLERANCE)
