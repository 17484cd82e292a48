"""Arithmetic of docs/scaling.md: what DDP sends in a step, against the time of the step.

    python -m bench.scaling                       # prints the tables of docs/scaling.md
    python -m bench.scaling --mfu 0.5 --gpus 64   # with other assumptions

Nothing is measured here. Sizes and FLOPs come from the project's own model and presets, links and
peaks from data sheets; links are multiplied by an efficiency.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from configs import load
from configs.size import flops_per_token
from train_gpt2 import GPT

ROOT = Path(__file__).parent.parent

BATCH_TOKENS = 524_288  # of every preset
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
PER_NODE = 8
EFFICIENCY = 0.8  # share of a link's nominal rate that a large all-reduce reaches
BACKWARD = 2 / 3  # of a micro-batch's time: two of three matrix products
BUCKET = 25 * 2**20  # bytes; DDP's default bucket_cap_mb
PEAKS = {"A100": 312e12, "H100/H200": 989.4e12}  # bfloat16, dense: record/hardware.py
SIZES = {"124M": None, "350M": "gpt2_350m", "774M": "gpt2_774m", "1.5B": "gpt2_1558m"}


@dataclass(frozen=True)
class Link:
    """A link between GPUs: of each GPU, in one direction."""

    name: str
    rate: float  # bytes/s
    latency: float  # s, of one message

    @property
    def speed(self) -> float:
        """Bytes per second that a large all-reduce reaches."""
        return EFFICIENCY * self.rate


NVLINK = Link("NVLink 4 (450 GB/s)", 450e9, 3e-6)
LINKS = (
    NVLINK,
    Link("PCIe 4 x16 (32 GB/s)", 32e9, 5e-6),
    Link("IB or RoCE 400 Gb/s", 50e9, 5e-6),
    Link("IB or RoCE 200 Gb/s", 25e9, 5e-6),
    Link("IB or RoCE 100 Gb/s", 12.5e9, 5e-6),
    Link("Ethernet 25 Gb/s", 3.125e9, 30e-6),
    Link("Ethernet 10 Gb/s", 1.25e9, 30e-6),
)
NETWORKS = LINKS[2:]


@dataclass(frozen=True)
class Size:
    """What one model computes and sends in a step."""

    name: str
    gradient_bytes: int  # float32, the padded rows of the embedding included
    flops_per_token: int
    last_bytes: int  # of those, the gradients that are known only when the backward pass ends

    def in_bfloat16(self) -> Size:
        """The same, if gradients are sent in bfloat16."""
        name, halves = f"{self.name} in bfloat16", (self.gradient_bytes // 2, self.last_bytes // 2)
        return replace(self, name=name, gradient_bytes=halves[0], last_bytes=halves[1])


def size(name: str) -> Size:
    """The size of a preset.

    The token embedding is also the head. Its gradient has a part from either end of the network,
    and so is complete only at the very end of the backward pass, with that of the positions.
    """
    preset = SIZES[name]
    words = ["configs/gpt2_124m.toml", *([f"configs/model/{preset}.toml"] if preset else [])]
    shape = load([str(ROOT / word) for word in words]).model
    with torch.device("meta"):
        model = GPT(shape)
    last = sum(p.numel() for p in (model.wte.weight, model.wpe.weight))
    every = sum(p.numel() for p in model.parameters())
    return Size(name, 4 * every, flops_per_token(shape), 4 * last)


def sent(gradient_bytes: float, ranks: int) -> float:
    """Bytes that each rank of a ring all-reduce sends (and receives): 2 (n - 1) / n of the data."""
    return 2 * (ranks - 1) / ranks * gradient_bytes


def ring(gradient_bytes: float, ranks: int, link: Link) -> float:
    """Seconds of one ring all-reduce over the gradients, bucket by bucket."""
    messages = 2 * (ranks - 1) * math.ceil(gradient_bytes / BUCKET)
    return sent(gradient_bytes, ranks) / link.speed + messages * link.latency


def hierarchical(gradient_bytes: float, ranks: int, network: Link) -> float:
    """Seconds of an all-reduce within nodes of 8 by NVLink and between them by `network`.

    Reduce-scatter in the node, all-reduce of each GPU's eighth with the same GPU of the other nodes
    (each GPU has its own network card), all-gather in the node. NCCL runs the two in turn for one
    bucket and overlaps those of different buckets; here their times are added.
    """
    inner, nodes = min(PER_NODE, ranks), ranks // min(PER_NODE, ranks)
    seconds = ring(gradient_bytes, inner, NVLINK)
    if nodes > 1:
        share = gradient_bytes / inner
        messages = 2 * (nodes - 1) * math.ceil(gradient_bytes / BUCKET)
        seconds += sent(share, nodes) / network.speed + messages * network.latency
    return seconds


def compute(model: Size, tokens: float, peak: float, mfu: float) -> float:
    """Seconds of forward and backward over `tokens` on one GPU."""
    return tokens * model.flops_per_token / (peak * mfu)


def hidden(model: Size, tokens: float, peak: float, mfu: float) -> float:
    """Seconds of communication that one GPU's backward pass over `tokens` can hide.

    Gradients are reduced during the backward pass of the last micro-batch, from the moment when the
    first bucket is full.
    """
    first = min(1.0, BUCKET / model.gradient_bytes)
    return BACKWARD * compute(model, tokens, peak, mfu) * (1 - first)


def early(model: Size, ranks: int, network: Link) -> float:
    """Seconds of the communication that can start before the backward pass ends."""
    return hierarchical(model.gradient_bytes - model.last_bytes, ranks, network)


def efficiency(
    model: Size,
    ranks: int,
    network: Link,
    peak: float,
    mfu: float,
    batch: int,
    accumulation: int = 1,
) -> float:
    """Share of the step that is not waiting for gradients; `accumulation`: micro-batches."""
    tokens = batch / ranks
    work = compute(model, tokens, peak, mfu)
    exposed = hierarchical(model.last_bytes, ranks, network)
    late = early(model, ranks, network) - hidden(model, tokens / accumulation, peak, mfu)
    return work / (work + exposed + max(0.0, late))


def tokens_to_hide(model: Size, ranks: int, network: Link, peak: float, mfu: float) -> float:
    """Tokens of one GPU's last micro-batch that hide all communication but the embedding's."""
    return early(model, ranks, network) / hidden(model, 1, peak, mfu)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def milliseconds(seconds: float) -> str:
    """Three figures."""
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def volume_table(models: list[Size]) -> str:
    """Gradients, and what a rank sends, by size."""
    rows = [
        [
            m.name,
            f"{m.gradient_bytes / 4:,.0f}",
            f"{m.gradient_bytes / 1e9:.3f}",
            *(f"{sent(m.gradient_bytes, n) / 1e9:.3f}" for n in (2, 8, 1024)),
            str(math.ceil(m.gradient_bytes / BUCKET)),
        ]
        for m in models
    ]
    head = ["size", "gradients", "GB (float32)", "sent, 2 GPUs", "8", "1,024", "buckets of 25 MiB"]
    return table(head, rows)


def link_table(models: list[Size], ranks: int = 8) -> str:
    """Milliseconds of one ring all-reduce over 8 GPUs, by link."""
    rows = [
        [link.name, *(milliseconds(ring(m.gradient_bytes, ranks, link)) for m in models)]
        for link in LINKS
    ]
    return table([f"ms over {ranks} GPUs", *(m.name for m in models)], rows)


def compute_table(models: list[Size], mfu: float, batch: int) -> str:
    """Milliseconds of forward and backward, by GPU and number of GPUs."""
    rows = []
    for name, peak in PEAKS.items():
        for n in (8, 64, 512):
            times = (milliseconds(compute(m, batch / n, peak, mfu)) for m in models)
            rows.append([f"{n} x {name}", *times])
    return table([f"ms at {mfu:.0%} MFU", *(m.name for m in models)], rows)


def overlap_table(models: list[Size], mfu: float, batch: int) -> str:
    """The most GPUs whose communication, but for the embedding's, is hidden."""
    rows = []
    for gpu, peak in PEAKS.items():
        for link in NETWORKS:
            cells = []
            for m in models:
                seconds = {n: early(m, n, link) for n in GPUS}
                fits = [n for n in GPUS if seconds[n] <= hidden(m, batch / n, peak, mfu)]
                cells.append(str(max(fits)) if fits else "-")
            rows.append([f"{gpu}, {link.name}", *cells])
    return table(["nodes of 8", *(m.name for m in models)], rows)


def tokens_table(model: Size, mfu: float, ranks: int = 128) -> str:
    """Tokens of a micro-batch that hide the communication."""
    rows = [
        [
            link.name,
            *(f"{tokens_to_hide(model, ranks, link, p, mfu):,.0f}" for p in PEAKS.values()),
        ]
        for link in NETWORKS
    ]
    return table([f"{model.name}, {ranks} GPUs", *PEAKS], rows)


def accumulation_table(model: Size, mfu: float, batch: int, ranks: int = 32) -> str:
    """Efficiency by the number of micro-batches in a step."""
    peak, counts = PEAKS["H100/H200"], (1, 2, 4, 8, 16)
    rows = [
        [link.name, *(f"{efficiency(model, ranks, link, peak, mfu, batch, k):.0%}" for k in counts)]
        for link in NETWORKS
    ]
    return table([f"{model.name}, {ranks} H100/H200, micro-batches", *map(str, counts)], rows)


def exposed_table(models: list[Size]) -> str:
    """Milliseconds for which the embedding's gradient is waited for, by GPUs and type."""
    network, rows = NETWORKS[0], []
    for n in (8, 64, 512):
        for kind, sizes in (("float32", models), ("bfloat16", [m.in_bfloat16() for m in models])):
            times = (milliseconds(hierarchical(m.last_bytes, n, network)) for m in sizes)
            rows.append([f"{n} GPUs, {kind}", *times])
    share = (f"{m.last_bytes / m.gradient_bytes:.1%}" for m in models)
    return table([f"ms, {network.name}", *(m.name for m in models)], [["share", *share], *rows])


def efficiency_table(model: Size, mfu: float, batch: int, gpu: str = "H100/H200") -> str:
    """Efficiency from 8 to 1,024 GPUs with the same batch."""
    sequences = batch // 1024
    counts = [n for n in GPUS if n <= sequences]
    rows = [
        [link.name, *(f"{efficiency(model, n, link, PEAKS[gpu], mfu, batch):.0%}" for n in counts)]
        for link in NETWORKS
    ]
    return table([f"{model.name}, batch {batch:,}", *map(str, counts)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mfu", type=float, default=0.4, help="of the compute alone")
    parser.add_argument("--batch", type=int, default=BATCH_TOKENS, help="tokens per update")
    parser.add_argument("--gpus", type=int, default=8, help="of the table by links")
    options = parser.parse_args()
    print(report(options.mfu, options.batch, options.gpus))


def report(mfu: float = 0.4, batch: int = BATCH_TOKENS, gpus: int = 8) -> str:
    """All tables."""
    models = [size(name) for name in SIZES]
    return "\n\n".join(
        [
            volume_table(models),
            link_table(models, gpus),
            compute_table(models, mfu, batch),
            overlap_table(models, mfu, batch),
            tokens_table(models[0], mfu),
            exposed_table(models),
            efficiency_table(models[0], mfu, batch),
            efficiency_table(models[0].in_bfloat16(), mfu, batch),
            efficiency_table(models[0], mfu, 2 * batch),
            accumulation_table(models[-1], mfu, batch),
        ]
    )


if __name__ == "__main__":
    main()
