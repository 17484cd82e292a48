"""Memory of the four sizes: what configs/size.py counts, and what a run needs at most."""

from __future__ import annotations

from functools import partial

from bench import memory, throughput
from bench.gpu.part import TINY, Part, Row, Settings, check, flags, run
from configs import Model, load, size

SIZES = ("124m", "350m", "774m", "1558m")
STATE_BYTES = 8  # a parameter, of AdamW
TOLERANCE = 0.15  # of what is counted
TABLE, ALONE = "memory, GiB", "a step alone, GiB"
STEPS = 3


def measure(settings: Settings, part: Part) -> None:
    """A few updates at each size, with the micro-batch of its preset or the largest that fits."""
    if settings.tiny and settings.device == "cpu":
        part.rows(TABLE, "tiny", _of_a_process)
        return
    for name in ("tiny",) if settings.tiny else SIZES:
        part.rows(TABLE, name, partial(_on_a_gpu, name, settings))
    for name in ("10M",) if settings.tiny else SIZES:
        for recomputes in (False, True):
            label = f"{name.upper()}{', blocks run again' if recomputes else ''}"
            part.rows(ALONE, label, partial(_alone, name.upper(), recomputes, settings))


def _on_a_gpu(name: str, settings: Settings) -> Row:
    """What the allocator gave at most, against the count; the context is not in either."""
    model = f"configs/model/gpt2_{name}.toml"
    words = ["configs/gpt2_124m.toml", *([] if name == "124m" else [model])]
    if settings.tiny:
        words = ["configs/quickstart.toml"]
    config = load(words)
    micro = config.train.micro_batch_size
    assert isinstance(micro, int), "a preset says how many"
    limit = _limit()
    while micro > 1 and _counted(config.model, micro) > limit:
        micro //= 2
    counted = _counted(config.model, micro)
    if counted > limit:
        return check(name, f"{counted:.3g} by counting", "more than this GPU has", None)
    batch = 2 * micro * config.model.block_size
    words += flags({"train.micro_batch_size": micro, "train.batch_tokens": batch})
    return _compared(f"{name}, {micro} sequences", counted, _peak(words))


def _alone(name: str, recomputes: bool, settings: Settings) -> Row:
    """A row of bench.memory, if this GPU has what is counted."""
    cuda = settings.device == "cuda"
    shape, rows = memory.shape_of(name), memory.ROWS[name]
    given = {"bfloat16": cuda, "compiled": cuda, "checkpointing": recomputes}
    counted = size.memory(shape, rows, STATE_BYTES, **given).total / size.GIB
    label = f"{name}, {rows} sequences{', blocks run again' if recomputes else ''}"
    if cuda and counted > _limit():
        return check(label, f"{counted:.3g} by counting", "more than this GPU has", None)
    dtype = "bfloat16" if cuda else "float32"
    found = float(memory.row(name, rows, dtype, recomputes, settings.device)[5])
    return _compared(label, counted, found)


def _limit() -> float:
    """GiB of this GPU, less what CUDA and the allocator's gaps take."""
    import torch

    return size.FILL * torch.cuda.get_device_properties(0).total_memory / size.GIB


def _of_a_process() -> Row:
    """On a CPU the difference that micro-batches make: Python and torch are in both runs."""
    values = {"model.vocab_size": 2048, "train.batch_tokens": 512 * 32, "train.device": "cpu"}
    peaks, counts = [], []
    for micro in (8, 512):
        given = TINY | values | {"train.micro_batch_size": micro}
        words = ["configs/quickstart.toml", *flags(given)]
        peaks.append(_peak(words))
        counts.append(_counted(load(words).model, micro, gpu=False))
    return _compared("512 sequences more than 8", counts[1] - counts[0], peaks[1] - peaks[0])


def _peak(words: list[str]) -> float:
    figures = throughput.measured(words, STEPS, start=run, skipped=0)
    return float(figures["peak_memory_gib"])


def _counted(shape: Model, micro: int, gpu: bool = True) -> float:
    counted = size.memory(shape, micro, STATE_BYTES, bfloat16=gpu, compiled=gpu)
    return counted.total / size.GIB


def _compared(name: str, counted: float, measured: float) -> Row:
    ratio = measured / counted
    expected = f"{counted:.3g} by counting, to {TOLERANCE:.0%}"
    found = f"{measured:.3g}, {ratio:.2f} of it"
    return check(name, expected, found, abs(ratio - 1) <= TOLERANCE)
