"""Products of float32 and attention on a CPU, by MKL and by oneDNN; optim/core/products.py chooses.

    python -m bench.products [--threads 2]

Products of a GPT-2's linear maps for 4,096 tokens (forward, and both gradients), and attention both
ways for as many tokens, by the fused kernel and by plain products. Best of the repetitions. oneDNN
multiplies where torch's precision is "medium". The error against float64 shows that it stays in
float32; with AMX it is bfloat16's, and optim/core/products.py leaves it alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.scaling import table
from optim.core.products import matmul_precision

TOKENS = 4096
MAPS = ((128, 128), (128, 512), (384, 1536), (768, 3072))  # inputs, outputs
HEADS = ((128, 32), (256, 64), (512, 64), (1024, 64))  # block_size, width; 384 in all heads
LIBRARIES = {"MKL": "highest", "oneDNN": "medium"}


def best(call: Callable[[], object], repeats: int = 12) -> float:
    """Seconds of the fastest call after two."""
    seconds = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds[2:])


def products_table() -> str:
    """GFLOP/s of forward, weight gradient and input gradient; largest error of the forward."""
    rows = []
    for k, n in MAPS:
        x, w, grad = torch.randn(TOKENS, k), torch.randn(n, k), torch.randn(TOKENS, n)
        calls = (lambda: x @ w.t(), lambda: grad.t() @ x, lambda: grad @ w)  # noqa: B023
        exact = x.double() @ w.double().t()
        for library, setting in LIBRARIES.items():
            torch.set_float32_matmul_precision(setting)
            rates = [2e-9 * TOKENS * k * n / best(call) for call in calls]
            error = ((x @ w.t()).double() - exact).abs().max().item()
            rows.append([f"{k} to {n}", library, *[f"{r:.0f}" for r in rates], f"{error:.0e}"])
    return table(["GFLOP/s", "by", "forward", "to the weight", "to the input", "error"], rows)


def attention_table() -> str:
    """Milliseconds of attention, forward and backward."""
    rows = []
    for block_size, width in HEADS:
        shape = TOKENS // block_size, 384 // width, block_size, width
        q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
        grad = torch.randn(shape)

        def both(kernel: SDPBackend) -> None:
            with sdpa_kernel(kernel):
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # noqa: B023
            y.backward(grad)  # noqa: B023

        cells = []
        for setting in LIBRARIES.values():
            torch.set_float32_matmul_precision(setting)
            for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
                cells.append(f"{1e3 * best(lambda kernel=kernel: both(kernel)):.1f}")  # type: ignore
        rows.append([f"{block_size} tokens, heads of {width}", *cells])
    kinds = [f"{kind}, {library}" for library in LIBRARIES for kind in ("fused", "products")]
    return table(["ms", *kinds], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    chosen = matmul_precision("cpu", tf32=False)
    library = next(name for name, setting in LIBRARIES.items() if setting == chosen)
    processor, load = platform.processor() or platform.machine(), os.getloadavg()[0]
    print(f"{processor}, torch {torch.__version__}, {threads} threads, load {load:.0f}")
    print(f"a run takes {library}\n")
    print(products_table())
    print()
    print(attention_table())


if __name__ == "__main__":
    main()
