"""build-nanogpt's own train_gpt2.py, as it is but for the sizes that a measurement sets.

It is read from a clone that is given, changed line by line in a copy in a temporary folder, and
never kept. A line that is not found ends the measurement: its code has changed. What it downloads
and evaluates beside training (tiktoken's table, HellaSwag) is replaced by two modules that do
nothing; both are called outside the updates that count.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from bench.gpu.part import Row, run
from bench.throughput import SKIPPED
from configs import Config

TIKTOKEN = """
class _Encoding:
    def encode(self, text):
        return [1, 2, 3, 4]
    def decode(self, tokens):
        return ""

def get_encoding(name):
    return _Encoding()
"""
HELLASWAG = """
def iterate_examples(split):
    yield None

def render_example(example):
    import torch
    tokens = torch.ones((4, 8), dtype=torch.long)
    return None, tokens, torch.ones_like(tokens), 0
"""
PEAK = """
if torch.cuda.is_available():
    print(f"peak {torch.cuda.max_memory_allocated() / 2**30} GiB")
"""


def measured(folder: Path, config: Config, steps: int, compiled: bool) -> Row:
    """Milliseconds of an update, tokens/s and GiB of build-nanogpt in `folder`.

    config: of our run beside it, for batch, micro-batch and shape.

    Raises:
        RuntimeError: its code is not what this was written for, or it has failed.
    """
    shape, train = config.model, config.train
    model = f"block_size={shape.block_size}, n_layer={shape.n_layer}, n_head={shape.n_head}"
    lines = {
        "total_batch_size = 524288": f"total_batch_size = {train.batch_tokens}",
        "B = 64 ": f"B = {train.micro_batch_size} ",
        "T = 1024 ": f"T = {shape.block_size} ",
        "GPTConfig(vocab_size=50304)": f"GPTConfig({model}, n_embd={shape.n_embd},"
        f" vocab_size={-(-shape.vocab_size // 64) * 64})",
        "max_steps = 19073 ": f"max_steps = {steps} ",
        "warmup_steps = 715": "warmup_steps = 5",
        "use_compile = False ": f"use_compile = {compiled} ",
    }
    code = (folder / "train_gpt2.py").read_text()
    for old, new in lines.items():
        if code.count(old) != 1:
            raise RuntimeError(f"{folder}: {old.strip()!r} is not in train_gpt2.py once")
        code = code.replace(old, new)
    with tempfile.TemporaryDirectory() as copy:
        work = Path(copy)
        (work / "train_gpt2.py").write_text(code + PEAK)
        (work / "tiktoken.py").write_text(TIKTOKEN)
        (work / "hellaswag.py").write_text(HELLASWAG)
        (work / "edu_fineweb10B").mkdir()
        rng, least = np.random.default_rng(0), 4 * train.batch_tokens
        for split in ("train", "val"):
            ids = rng.integers(shape.vocab_size, size=least + 1, dtype=np.uint16)
            np.save(work / "edu_fineweb10B" / f"{split}_000000.npy", ids)
        printed = run([sys.executable, "train_gpt2.py"], work)
    times = [float(ms) for ms in re.findall(r"\| dt: ([\d.]+)ms", printed)]
    if len(times) != steps:
        raise RuntimeError(f"{folder} printed {len(times)} updates, not {steps}")
    peak = re.search(r"peak ([\d.]+) GiB", printed)
    ms = median(times[SKIPPED:-1])  # the last one contains an evaluation
    return {
        "ms": ms,
        "tokens/s": 1e3 * train.batch_tokens / ms,
        "peak GiB": float(peak[1]) if peak else None,
    }
