"""The loss on a fixed batch as a function of all weights: its value, gradient and curvature.

Weights, gradients and directions are flat vectors over all parameters, in the model's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from configs import ConfigError
from train_gpt2 import GPT


class Loss:
    """The sum of `parts`, each a function of the parameters, which gradients are taken of.

    passed: called after each pass over all parts, for a progress bar.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        parts: Sequence[Callable[[], Tensor]],
        passed: Callable[[], object] = lambda: None,
    ) -> None:
        self.params, self.parts, self.passed = list(params), list(parts), passed

    @classmethod
    def of(
        cls, model: GPT, batch: Tensor, rows: int, passed: Callable[[], object] = lambda: None
    ) -> Loss:
        """Cross-entropy of `batch` (sequences, block_size + 1), nats per token; `rows` at a time.

        Raises:
            ConfigError: the model is compiled, or wrapped in another way; one line.
        """
        if not isinstance(model, GPT):
            raise ConfigError(
                f"a compiled model ({type(model).__name__}) has no second derivative; give the GPT"
                " itself, as analysis.trained.trained loads it from a run, compiled or not"
            )

        def mean(chunk: Tensor) -> Tensor:
            chunk = chunk.to(model.wte.weight.device)
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
                return model(chunk[:, :-1], chunk[:, 1:]) * (len(chunk) / len(batch))

        return cls(model.parameters(), [partial(mean, c) for c in batch.split(rows)], passed)

    @property
    def weights(self) -> Tensor:
        """A copy of all weights."""
        return _flat(p.detach() for p in self.params)

    def put(self, weights: Tensor) -> None:
        """Replace all weights by a copy of these."""
        with torch.no_grad():
            for p, piece in zip(self.params, self._pieces(weights), strict=True):
                p.copy_(piece)

    def value(self) -> float:
        """The loss."""
        with torch.no_grad():
            total = sum(float(part()) for part in self.parts)
        self.passed()
        return total

    def gradient(self) -> tuple[float, Tensor]:
        """The loss, and its gradient."""
        total, sums = 0.0, torch.zeros_like(self.weights)
        for part in self.parts:
            loss = part()
            total += float(loss.detach())
            sums += _flat(torch.autograd.grad(loss, self.params, materialize_grads=True))
        self.passed()
        return total, sums

    def product(self, direction: Tensor) -> Tensor:
        """The Hessian times `direction`: the gradient of the slope in that direction."""
        wanted, sums = self._pieces(direction), torch.zeros_like(direction)
        for part in self.parts:
            gradient = torch.autograd.grad(
                part(), self.params, create_graph=True, materialize_grads=True
            )
            slope = torch.stack([(g * v).sum() for g, v in zip(gradient, wanted, strict=True)])
            sums += _flat(torch.autograd.grad(slope.sum(), self.params, materialize_grads=True))
        self.passed()
        return sums

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        """A flat vector in the shapes of the parameters."""
        pieces = flat.split([p.numel() for p in self.params])
        return [piece.view_as(p) for piece, p in zip(pieces, self.params, strict=True)]


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])
