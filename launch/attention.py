"""Which kernel computes attention: the order of preference on a GPU, and the one that was taken."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from configs import Model
from configs.size import SHORT

# cuDNN's kernel takes 0.4 to 0.6 of the time of FlashAttention 2 on Hopper, 1.2 of it on an A100
# (github.com/huggingface/transformers/pull/48163); on a B200 it is the faster one as well
# (github.com/pytorch/torchtitan/pull/1196), on workstation cards of that generation (12.0) not.
_CUDNN_FIRST = ((9, 0), (10, 0))
_FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)


def kernels(capability: tuple[int, int]) -> list[SDPBackend]:
    """Backends for a GPU of this compute capability, the best first; the last one always works."""
    order = [*_FUSED, SDPBackend.MATH]
    if capability in _CUDNN_FIRST:
        order.sort(key=lambda backend: backend != SDPBackend.CUDNN_ATTENTION)
    return order


def preferred(device: torch.device, block_size: int) -> AbstractContextManager[None]:
    """Within it, attention takes the first of `kernels` that can.

    On a CPU, sequences of up to SHORT tokens go through plain products: 128 tokens take 0.5 of the
    fused kernel's time, 256 about 0.9, 512 twice its time.
    """
    if device.type != "cuda":
        return sdpa_kernel(SDPBackend.MATH) if block_size <= SHORT else nullcontext()
    order = kernels(torch.cuda.get_device_capability(device))
    return sdpa_kernel(order, set_priority=True)


def taken(shape: Model, dtype: str, device: torch.device) -> str:
    """The backend that attention takes here, such as "cudnn_attention".

    Left alone, torch takes a slower one on an H100 (github.com/pytorch/pytorch/issues/142132), and
    says nothing of its choice; so a run asks, and records the answer.
    """
    sizes = 1, shape.n_head, shape.block_size, shape.n_embd // shape.n_head
    q = torch.empty(sizes, dtype=getattr(torch, dtype), device=device, requires_grad=True)
    return str(SDPBackend(torch._fused_sdp_choice(q, q, q, is_causal=True)).name).lower()
