"""Which kernel computes attention: the order of preference on a GPU, and the one that was taken."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from configs import Model

# cuDNN's kernel takes 0.4 to 0.6 of the time of FlashAttention 2 on an H100, and 1.2 of it on an
# A100 (github.com/huggingface/transformers/issues/48163).
_HOPPER = (9, 0)
_FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)


def kernels(capability: tuple[int, int]) -> list[SDPBackend]:
    """Backends for a GPU of this compute capability, the best first; the last one always works."""
    fused = sorted(_FUSED, key=lambda x: capability >= _HOPPER and x != SDPBackend.CUDNN_ATTENTION)
    return [*fused, SDPBackend.MATH]


def preferred(device: torch.device) -> AbstractContextManager[None]:
    """Within it, attention takes the first of `kernels` that can; on a CPU there is one kernel."""
    if device.type != "cuda":
        return nullcontext()
    order = kernels(torch.cuda.get_device_capability(device))
    return sdpa_kernel(order, set_priority=True)


def taken(shape: Model, dtype: str, device: torch.device) -> str:
    """The backend that attention takes here, such as "cudnn_attention".

    Some builds of torch lose one without a word (github.com/pytorch/pytorch/issues/162073), so a
    run asks, and records the answer.
    """
    sizes = 1, shape.n_head, shape.block_size, shape.n_embd // shape.n_head
    q = torch.empty(sizes, dtype=getattr(torch, dtype), device=device, requires_grad=True)
    return str(SDPBackend(torch._fused_sdp_choice(q, q, q, is_causal=True)).name).lower()
