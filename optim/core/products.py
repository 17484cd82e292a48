"""Which library multiplies matrices of float32: on a CPU the fastest that does not round more."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import torch


def matmul_precision(device: str, tf32: bool) -> str:
    """What torch.set_float32_matmul_precision should be given for products on `device`.

    "highest"; on a GPU "high" if `tf32`; on a CPU "medium" where that is float32 as well. torch
    calls MKL for float32, which makes nothing of an AMD processor's AVX-512, and oneDNN where
    bfloat16 is allowed ("medium"). oneDNN takes bfloat16 on processors with AMX only; on the others
    it multiplies in float32, on an AMD EPYC twice as fast as MKL (docs/results/cpu.md).
    """
    if device == "cpu":
        return _of_this_processor()
    return "high" if tf32 and device == "cuda" else "highest"


@functools.cache
def _of_this_processor() -> str:
    with ThreadPoolExecutor(1) as thread:  # it has no mode, such as one of tensors without data
        return thread.submit(_fastest).result()


def _fastest() -> str:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        return "medium" if _onednn_may_be_asked() and _keeps_float32() else "highest"
    finally:
        torch.set_float32_matmul_precision(before)


def _onednn_may_be_asked() -> bool:
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return wide and not torch.cpu.get_capabilities().get("amx_tile")


def _keeps_float32() -> bool:
    """Whether products with the identity give numbers back that bfloat16 cannot hold."""
    x = 1 + torch.arange(256 * 256).view(256, 256) / 2**23  # exact in float32, and only there
    one = torch.eye(256)
    pairs = (x, one), (one, x), (x.t(), one), (x.expand(4, -1, -1), one.expand(4, -1, -1))
    return all(torch.equal(a @ b, b if a is one else a) for a, b in pairs)
