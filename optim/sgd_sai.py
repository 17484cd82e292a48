"""SGD-SaI: momentum SGD with a learning rate per tensor from its first gradient; and a control."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optim.core.base import UpdateRule
from optim.core.batch import Batch, Params, State, Tensors, Values
from optim.core.hyperparameters import Beta, NonNegative
from optim.core.width import GRADIENT, Powers

# Powers of the width: of n x n elements, and of n.
_GROWTH = {"hidden": 1.0, "embedding": 0.5, "vector": 0.5}


class _ScaledSGD(UpdateRule):
    """Momentum SGD with a fixed factor on the learning rate of each tensor, kept in its state."""

    @classmethod
    def width_rule(cls, h: Values) -> Powers | None:
        """That of the gradient over the factor's growth, a square root of the tensor's size.

        With `normalise` none: which tensor has the largest factor depends on the vocabulary.
        """
        return (
            None if h["normalise"] else {role: GRADIENT[role] - _GROWTH[role] for role in _GROWTH}
        )

    def scale(self, p: Tensor, h: Values) -> Tensor:
        """The factor of `p`, without dimensions; its first gradient is in `p.grad`."""
        raise NotImplementedError

    def init_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """The factor, and the momentum, which begins at the first gradient."""
        assert p.grad is not None
        state = {"scale": self.scale(p, h)}
        return {**state, "momentum_buffer": p.grad.clone()} if h["momentum"] else state

    def advance(self, batches: list[Batch]) -> None:
        """With `normalise`, lr is divided by the largest factor of all tensors seen so far."""
        largest = None
        if any(group["normalise"] for group in self.param_groups):
            largest = self._largest_scale(batches)
        for batch in batches:
            c = self.coefficients(batch.h, batch.step)
            if largest is not None and batch.h["normalise"]:
                # here, because a compiled update would divide once for each element
                c = {**c, "lr": c["lr"] / largest.to(batch.params[0].device)}
            self.run(self.update, batch, c)

    def _largest_scale(self, batches: list[Batch]) -> Tensor:
        """Of all ranks; 0 if there is none yet."""
        seen = [scale for batch in batches for scale in batch.state["scale"]]
        params = [p for group in self.param_groups for p in group["params"]]
        known = [self.state.get(p, {}) for p in params]
        seen += [state["scale"] for state in known if "scale" in state]
        seen = seen or [torch.zeros((), device=params[0].device)]
        largest = torch.stack([scale.to(seen[0].device) for scale in seen]).max()
        return self.by_rank(largest.double()).max().to(largest.dtype)

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        momentum, b = h["momentum"], grads
        if momentum:
            b = state["momentum_buffer"]
            torch._foreach_lerp_(b, grads, 1 - momentum)  # leaves b = g as it is, at t = 1
        if h["weight_decay"]:
            torch._foreach_mul_(params, c["decay"])
        factors = torch._foreach_mul(state["scale"], c["lr"])
        torch._foreach_sub_(params, torch._foreach_mul(b, factors))


class SGDSaI(_ScaledSGD):
    """Momentum SGD with a learning rate per tensor, set once by its gradient's signal to noise.

    Source: Xu et al., "No More Adam: Learning Rate Scaling at Initialization is All You Need",
    arXiv:2412.11768, Algorithm 1; the authors' package sgd-sai 1.0.3.

        t = 1, for each tensor:   k = norm(g) / (std(g) + eps)
        b <- momentum * b + (1 - momentum) * g                   (t = 1: b <- g)
        p <- p * (1 - lr * weight_decay)
        p <- p - lr * k * b                                      (normalise: k / max k)

    Differs: the paper divides k by the largest k of the model, its package does not: `normalise`
    chooses, and lr differs by that factor, 6200 for GPT-2 124M. If the standard deviation is only
    rounding (one element, a constant or a zero gradient), the package's k is norm(g)/eps or 0; here
    it is sqrt(n), as for any gradient with a small mean. The package fails without momentum and for
    a first gradient after the first step, and measures k again after a resume; this code does not.
    Tuning: k is very nearly the square root of the tensor's size (within 3 % on GPT-2), so try
    `sgd_sqrtn` beside it. Without `normalise` lr is some 1e-4 to 3e-3 for GPT-2. The first gradient
    decides for the whole run, so it should be that of a whole batch. AdamW's lr * weight_decay
    carries over, its weight_decay does not.
    State: momentum_buffer, and one number per tensor: 4 bytes per parameter.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-2,
        momentum: Beta = 0.9,
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 1e-2,
        normalise: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def scale(self, p: Tensor, h: Values) -> Tensor:
        """The g-SNR of the first gradient."""
        assert p.grad is not None
        g = p.grad.to(torch.promote_types(p.dtype, torch.float32))
        root = torch.full_like(g.sum(), math.sqrt(p.numel()))
        if p.numel() == 1:
            return root
        deviation = g.std()
        rounding = 4 * torch.finfo(p.dtype).eps * g.abs().max()
        snr = torch.linalg.vector_norm(g) / (deviation + h["eps"])
        return torch.where(deviation > rounding, snr, root)


class SGDSqrtN(_ScaledSGD):
    """The control of SGD-SaI: momentum SGD with lr times the square root of the tensor's size.

    Source: the identity norm(g)^2 = (n - 1) std(g)^2 + n mean(g)^2, by which SGD-SaI's k
    (arXiv:2412.11768) is sqrt(n - 1 + n (mean / std)^2), for n elements: near sqrt(n) unless the
    gradient's mean is of the size of its deviation.

        b <- momentum * b + (1 - momentum) * g                   (t = 1: b <- g)
        p <- p * (1 - lr * weight_decay)
        p <- p - lr * sqrt(n) * b                                (normalise: / max sqrt(n))

    Differs: from SGD-SaI only in k, so that the difference between the two is what g-SNR adds.
    Tuning: as SGD-SaI.
    State: momentum_buffer, and one number per tensor: 4 bytes per parameter.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-2,
        momentum: Beta = 0.9,
        weight_decay: NonNegative = 1e-2,
        normalise: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def scale(self, p: Tensor, h: Values) -> Tensor:
        """The square root of the number of elements."""
        dtype = torch.promote_types(p.dtype, torch.float32)
        return torch.tensor(math.sqrt(p.numel()), dtype=dtype, device=p.device)
