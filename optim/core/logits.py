"""The largest attention logit of each head, for optimizers that keep logits from growing.

Attention kernels do not return their logits. A model whose logits can be watched has, in each
attention, `n_head` and `largest_logits`, which is None unless they are watched, and calls
`note_logits` in its forward pass. It computes the products of queries and keys once more: about a
sixth of attention's own work in a forward and backward pass, and only for updates that ask for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from optim.core.base import Optimizer

_BLOCK = 128  # queries at a time: the logits of all would be the largest tensor of the model


@contextmanager
def watched_logits(
    optimizer: Optimizer, model: nn.Module, step: int, over_ranks: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Give `optimizer` the largest logits of the forward passes within, if it asks at this step.

    Args:
        optimizer: one with the hooks `logits_due` and `update_logits`.
        model: its attentions are watched, in all forward passes together.
        step: of the update, from 0.
        over_ranks: the largest of a tensor over all ranks, element by element.
    """
    due = optimizer.logits_due(step)
    found: dict[str, Any] = {
        name: module
        for name, module in (model.named_modules() if due else ())
        if hasattr(module, "largest_logits")
    }
    for module in found.values():
        device = next(module.parameters()).device
        module.largest_logits = torch.full((module.n_head,), -math.inf, device=device)
    try:
        yield
        largest = {name: over_ranks(module.largest_logits) for name, module in found.items()}
    finally:
        for module in found.values():
            module.largest_logits = None
    optimizer.update_logits(largest)


@torch.no_grad()
def note_logits(
    largest: Tensor | None, queries: Tensor, keys: Tensor, scale: float | None = None
) -> None:
    """Raise `largest` in place to the largest causal logit, scale * q . k, of each head.

    Args:
        largest: (heads,) in float32; None: logits are not watched, and nothing is done.
        queries: (B, heads, T, d).
        keys: (B, heads, T, d).
        scale: None: 1 / sqrt(d).
    """
    if largest is None:
        return
    length, width = queries.shape[-2:]
    for start in range(0, length, _BLOCK):
        end = min(start + _BLOCK, length)
        logits = queries[..., start:end, :] @ keys[..., :end, :].mT
        future = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(future.triu(start + 1), -math.inf)
        found = logits.amax((0, 2, 3)).to(largest.dtype)
        found = found / math.sqrt(width) if scale is None else found * scale
        largest.copy_(torch.maximum(largest, found))
