"""torch's fused kernels: where they are right."""

from __future__ import annotations

from typing import Any

import torch

from optim.core.base import Optimizer


class Fused(Optimizer):
    """For classes with a fused kernel: it is used where it is right, otherwise torch chooses.

    torch's fused kernel for CPUs walks through parameter, gradient and state as they lie in memory,
    so all must be dense and lie alike. Of a parameter that is a part of a larger tensor it would
    overwrite the rest.
    """

    fused_on: tuple[str, ...] = ("cpu", "cuda")  # kinds of devices

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        fusable = (
            p.is_floating_point() and p.device.type in self.fused_on for p in group["params"]
        )
        group["fused"] = all(fusable) or None

    def check_step(self) -> None:
        """Leave the fused kernel for good once a group has tensors that it would misread."""
        for group in self.param_groups:
            alike = (_alike(p, self.state.get(p, {})) for p in group["params"])
            group["fused"] = (group["fused"] and all(alike)) or None


def _alike(p: torch.Tensor, state: dict[str, Any]) -> bool:
    """Whether `p`, its gradient and its state are dense and in the same order in memory."""
    if p.grad is None:
        return True
    tensors = [t for t in (p, p.grad, *state.values()) if torch.is_tensor(t) and t.ndim == p.ndim]
    if any(t.layout != torch.strided for t in tensors):
        return False
    if all(t.is_contiguous() for t in tensors):
        return True
    strides = torch.empty_like(p, device="meta").stride()  # those of `p` only if it is dense
    return all(t.stride() == strides for t in tensors)
