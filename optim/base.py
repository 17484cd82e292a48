"""The one shape of an optimizer: torch's, plus three hooks that do nothing unless overridden.

The training loop calls the hooks for every optimizer, so that it never asks which one it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch


class Optimizer(torch.optim.Optimizer):
    """A torch optimizer with the hooks that the training loop calls.

    `param_groups[i]["lr"]` is what the next step uses; `p.grad` is left alone; a parameter
    without a gradient is skipped; lr 0 moves nothing; `state_dict` round-trips bit for bit.
    """

    def train_mode(self) -> None:
        """Put the weights where gradients are taken (schedule-free methods, averaging)."""

    def eval_mode(self) -> None:
        """Put the weights where the loss is evaluated (schedule-free methods, averaging)."""

    def diagnostics(self) -> dict[str, float]:
        """Numbers worth a curve, by name: an estimated distance, the RMS of the update."""
        return {}


def optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in `optimizer.state`, step counters included."""
    return sum(t.numel() * t.element_size() for t in _tensors(list(optimizer.state.values())))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
