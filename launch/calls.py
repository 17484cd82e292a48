"""The model as the loop calls it: compiled, and with weights in bfloat16 where asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from configs import Train
from launch.compiler import compiles

Called = TypeVar("Called", bound=Callable[..., Any])


def called(model: nn.Module, settings: Train, device: torch.device) -> nn.Module:
    """`model` as `settings` have it called; its own parameters stay those that are trained."""
    if settings.dtype == "bfloat16-weights":
        return Bfloat16Weights(model, settings.compile, device)
    return _compiled(model, settings.compile, device)


def _compiled(
    function: Called, setting: Literal["auto", "max-autotune"] | bool, device: torch.device
) -> Called:
    """`function` under torch.compile, if `setting` (train.compile) says so."""
    if not compiles(device.type, setting):
        return function
    # "max-autotune" times several kernels for each matrix product and keeps the fastest. Only then
    # can a kernel also compute what follows its product, as GELU follows one ("epilogue_fusion" in
    # docs.pytorch.org/docs/stable/generated/torch.compile.html). Without CUDA graphs, whose gain is
    # in kernels shorter than their launch.
    mode = "max-autotune-no-cudagraphs" if setting == "max-autotune" else None
    return cast("Called", torch.compile(function, dynamic=False, mode=mode))


class Bfloat16Weights(nn.Module):
    """`model`, called with bfloat16 copies of its matrices, made once for all passes of an update.

    Under autocast alone, each pass casts each matrix again, and the residual stream is in float32,
    as the embeddings are. Gradients reach the float32 parameters in bfloat16 and add up there in
    float32, as under autocast; the two of the tied embedding in one pass add up in bfloat16.
    Vectors (LayerNorms and biases) have no copies.
    """

    def __init__(
        self,
        model: nn.Module,
        compile: Literal["auto", "max-autotune"] | bool,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.model = model
        self.masters = {name: p for name, p in model.named_parameters() if p.ndim > 1}
        self.copies = [torch.empty_like(p, dtype=torch.bfloat16) for p in self.masters.values()]

        def call(weights: dict[str, Tensor], *inputs: Any) -> Tensor:
            return torch.func.functional_call(model, weights, inputs)

        self.call = _compiled(call, compile, device)

    def forward(self, tokens: Tensor, targets: Tensor, by_sequence: bool = False) -> Tensor:
        """As the model's own."""
        masters: list[Tensor] = list(self.masters.values())
        # Without a gradient this is the first pass of an update: weights change in no later one.
        if not torch.is_grad_enabled() or masters[0].grad is None:
            with torch.no_grad():
                torch._foreach_copy_(self.copies, masters)
        pairs = zip(masters, self.copies, strict=True)
        weights = dict(zip(self.masters, [_Copy.apply(*pair) for pair in pairs], strict=True))
        return self.call(weights, tokens, targets, by_sequence)


class _Copy(torch.autograd.Function):
    """The copy of a parameter, whose gradient is the parameter's."""

    @staticmethod
    def forward(ctx: Any, master: Tensor, copy: Tensor) -> Tensor:
        return copy.view_as(copy)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.float(), None
