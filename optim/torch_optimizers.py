"""torch.optim's own optimizers, with typed keyword-only hyperparameters and documented traps.

The mathematics is torch's, unchanged. What these subclasses decide is the implementation: torch's
fused kernel where there is one for the device, otherwise torch's own choice (foreach on a GPU).
Below, t counts steps from 1, g is the gradient, "decoupled" decay is AdamW's
p <- p (1 - lr * weight_decay) and "coupled" decay is g <- g + weight_decay * p.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from optim.core.base import Optimizer
from optim.core.batch import Params, Values
from optim.core.fused import Fused
from optim.core.hyperparameters import AtLeastOne, Beta, Betas, NonNegative, Ratio, from_locals
from optim.core.width import ELEMENTWISE, GRADIENT, CoupledDecay, Powers

_FLOAT32_EPS = 2.0**-23


class SGD(torch.optim.SGD, Fused):
    """Stochastic gradient descent with momentum, classical or Nesterov's.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning",
    ICML 2013; torch.optim.SGD.

        g <- g + weight_decay * p                                (coupled)
        b <- momentum * b + (1 - dampening) * g                  (t = 1: b <- g)
        p <- p - lr * (g + momentum * b  if nesterov  else b)    (momentum 0: p <- p - lr * g)

    Nesterov's method is usually explained with the gradient taken ahead of the weights x:

        x_ahead = x + momentum * v
        v <- momentum * v - lr * gradient(x_ahead)
        x <- x + v

    With constant lr the two are one: p is x_ahead and b is -v / lr, so x = p + lr * momentum * b. A
    model trained here therefore is the model ahead, where its gradients are taken.
    Differs: the paper puts lr inside the buffer; here it is outside, so that a schedule acts at
    once; with a changing lr the two forms of Nesterov's differ. Dampening is not applied at the
    first step. No default of torch's is changed.
    Tuning: the update has the gradient's scale, so lr is not comparable with AdamW's: 100 to 1000
    times it, with clipping and warm-up. weight_decay is coupled: per step it shrinks a weight by
    lr * weight_decay / (1 - momentum), so AdamW's 0.1 is far too much. Dampening = momentum makes
    the buffer an average, worth an lr that is 1 / (1 - momentum) times larger.
    State: none, or with momentum one tensor per parameter: 4 bytes per parameter in float32.
    """

    width_powers = GRADIENT

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        momentum: Beta = 0.0,
        dampening: Ratio = 0.0,
        nesterov: bool = False,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(params, **from_locals(locals()))

    def check_step(self) -> None:
        """As above; the fused kernel also cannot begin a momentum beside others."""
        super().check_step()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            begun = {self.state.get(p, {}).get("momentum_buffer") is not None for p in params}
            if group["momentum"] and len(begun) == 2:
                group["fused"] = None


class Adam(CoupledDecay, torch.optim.Adam, Fused):
    """Adam, with coupled weight decay.

    Source: Kingma & Ba, "Adam", arXiv:1412.6980, Algorithm 1; amsgrad: Reddi et al., "On the
    Convergence of Adam and Beyond", ICLR 2018, Algorithm 2; torch.optim.Adam.

        g <- g + weight_decay * p                                (coupled: L2 regularisation)
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Differs: nothing; amsgrad takes the maximum of v before its bias correction.
    Tuning: as AdamW without weight decay. With it: the decay passes through m and v, so it hardly
    acts on weights with large gradients; for AdamW's decay use `adamw`.
    State: exp_avg, exp_avg_sq (and max_exp_avg_sq with amsgrad): 8 (12) bytes per parameter.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, **from_locals(locals()))


class AdamW(torch.optim.AdamW, Fused):
    """Adam with decoupled weight decay: the baseline of this bench.

    Source: Loshchilov & Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101,
    Algorithm 2; torch.optim.AdamW.

        p <- p * (1 - lr * weight_decay)
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Differs: the paper's decay is multiplied by the schedule's factor only; torch's by lr, so that
    a sweep of lr sweeps the decay too.
    Tuning: the reference for the other docstrings. Published GPT-2 124M runs take lr 6e-4 to
    1.8e-3, weight_decay 0.1, and beta2 0.95 rather than the 0.999 of the default here (torch's):
    state yours, because it is the most common hidden difference between papers.
    State: exp_avg, exp_avg_sq (and max_exp_avg_sq with amsgrad): 8 (12) bytes per parameter.
    """

    width_powers = ELEMENTWISE

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, **from_locals(locals()))


class NAdam(CoupledDecay, torch.optim.NAdam, Optimizer):
    """Adam with Nesterov momentum and Dozat's momentum warm-up.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam", ICLR 2016 workshop, Algorithm 2;
    torch.optim.NAdam.

        p <- p * (1 - lr * weight_decay)                         (decoupled)
        mu_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2),      Pi_t = mu_1 * ... * mu_t
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        d = sqrt(v / (1 - beta2^t)) + eps
        p <- p - lr * (1 - mu_t) / (1 - Pi_t) * g / d - lr * mu_{t+1} / (1 - Pi_{t+1}) * m / d

    Differs: `decoupled_weight_decay` is true by default; torch's default couples the decay, and
    AdamW's 0.1 would then mean something else. This is not the "NAdamW" of AlgoPerf,
    which has no mu_t: there beta1 is constant and the early steps are larger.
    Tuning: lr and weight_decay as AdamW; mu_t starts near beta1 / 2 and nears beta1 only over
    hundreds of steps.
    State: exp_avg, exp_avg_sq, and the scalar mu_product: 8 bytes per parameter.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.0,
        momentum_decay: NonNegative = 4e-3,
        decoupled_weight_decay: bool = True,
    ) -> None:
        super().__init__(params, **from_locals(locals()))


class RAdam(torch.optim.RAdam, Optimizer):
    """Adam with the variance of its early steps rectified.

    Source: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond",
    arXiv:1908.03265, Algorithm 2; torch.optim.RAdam.

        p <- p * (1 - lr * weight_decay)                         (decoupled)
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        rho = 2 / (1 - beta2) - 1,   rho_t = rho - 2 t * beta2^t / (1 - beta2^t)
        r = sqrt((rho_t - 4)(rho_t - 2) rho / ((rho - 4)(rho - 2) rho_t))
        p <- p - lr * r * sqrt(1 - beta2^t) * (m / (1 - beta1^t)) / (sqrt(v) + eps)   (rho_t > 5)
        p <- p - lr * (m / (1 - beta1^t))                                             (otherwise)

    Differs: rectifies from rho_t > 5 where the paper has 4. eps is outside the bias correction of
    v, unlike Adam's. `decoupled_weight_decay` is true by default; torch's default couples it.
    Tuning: as AdamW. The first 5 steps or so are not normalised: they are steps of momentum SGD
    with Adam's lr, small after clipping but not zero. Rectification is a warm-up; a schedule's
    warm-up comes on top.
    State: exp_avg, exp_avg_sq: 8 bytes per parameter.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.0,
        decoupled_weight_decay: bool = True,
    ) -> None:
        super().__init__(params, **from_locals(locals()))


class Adagrad(CoupledDecay, torch.optim.Adagrad, Fused):
    """Per-coordinate step sizes from the sum of all squared gradients.

    Source: Duchi, Hazan & Singer, "Adaptive Subgradient Methods", JMLR 12 (2011);
    torch.optim.Adagrad.

        g <- g + weight_decay * p                                (coupled)
        s <- s + g^2                                             (s_0 = initial_accumulator_value)
        p <- p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    Differs: nothing of torch's. lr_decay is a second schedule inside the optimizer: leave it 0.
    Tuning: the step shrinks as 1 / sqrt(t) by itself, so lr is 10 or more times AdamW's; a decaying
    schedule comes on top. The first step is lr * sign(g). AdamW's weight_decay does not carry over.
    State: one tensor per parameter, allocated at construction: 4 bytes per parameter in float32.
    """

    fused_on = ("cpu",)  # torch 2.11 refuses its fused kernel on CUDA

    @classmethod
    def width_rule(cls, h: Values) -> Powers | None:
        """None with an initial s either: the step then depends on the gradient's size."""
        return None if h["initial_accumulator_value"] else super().width_rule(h)

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-2,
        lr_decay: NonNegative = 0.0,
        eps: NonNegative = 1e-10,
        weight_decay: NonNegative = 0.0,
        initial_accumulator_value: NonNegative = 0.0,
    ) -> None:
        super().__init__(params, **from_locals(locals()))


class RMSprop(CoupledDecay, torch.optim.RMSprop, Optimizer):
    """The gradient divided by a running root mean square of itself.

    Source: Tieleman & Hinton, "Lecture 6.5: rmsprop", Coursera 2012; centered: Graves,
    arXiv:1308.0850, section 4.2; torch.optim.RMSprop.

        g <- g + weight_decay * p                                (coupled)
        v <- alpha * v + (1 - alpha) * g^2
        a <- alpha * a + (1 - alpha) * g                         (centered)
        u = g / (sqrt(v - a^2) + eps  if centered  else sqrt(v) + eps)
        b <- momentum * b + u;   p <- p - lr * b                 (momentum 0: p <- p - lr * u)

    Differs: nothing of torch's. v has no bias correction.
    Tuning: without bias correction the first step is 1 / sqrt(1 - alpha) times Adam's, 10 times
    for alpha 0.99: it needs a warm-up. With momentum the step is 1 / (1 - momentum) times larger
    than Adam's of the same lr. In float32 `centered` loses two or three digits to cancellation.
    State: square_avg, grad_avg if centered, momentum_buffer if momentum: 4, 8 or 12 bytes per
    parameter in float32.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-2,
        alpha: Beta = 0.99,
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.0,
        momentum: Beta = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(params, **from_locals(locals()))


class Adafactor(torch.optim.Adafactor, Optimizer):
    """Second moments as the outer product of a row and a column; steps relative to the weights.

    Source: Shazeer & Stern, "Adafactor", arXiv:1804.04235, Algorithms 4 and 5;
    torch.optim.Adafactor.

        beta_t = 1 - t^beta2_decay,   rho_t = min(lr, 1 / sqrt(t))
        alpha = max(eps2, RMS(p)) * rho_t
        p <- p * (1 - lr * weight_decay)
        R <- beta_t * R + (1 - beta_t) * rowmean(g^2),  C likewise by columns;  V = R C^T / mean(R)
        u = g / sqrt(max(V, eps1^2));   u <- u / max(1, RMS(u) / d)
        p <- p - alpha * u                                       (vectors: V is not factored)

    Differs: eps1 is a floor under V instead of a term added to g^2. torch's default for it, None,
    means the machine epsilon of the dtype; the default here is that number for float32. Much
    smaller values, such as the paper's 1e-30, underflow when squared, and a row of zero gradients
    (a token that never occurs) then becomes NaN.
    Tuning: lr is relative to RMS(p): at RMS 0.02, lr 1e-2 is AdamW's 2e-4. 1 / sqrt(t) caps it
    silently, from step 10,000 on at lr 1e-2 and from step 100 on at 0.1, so a constant or WSD
    schedule does not stay constant. The decay uses lr, not alpha, uncapped. A tensor of zeros
    starts with steps of eps2 * rho_t. There is no first moment.
    State: row_var and col_var, 4 (1/m + 1/n) bytes per parameter of an m x n matrix (0.01 for
    GPT-2's); variance, 4 bytes per parameter of a vector.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-2,
        beta2_decay: Annotated[float, Field(le=0)] = -0.8,
        eps: tuple[Annotated[float, Field(ge=1e-15)], NonNegative] = (_FLOAT32_EPS, 1e-3),
        d: AtLeastOne = 1.0,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(params, **from_locals(locals()))

    def check_step(self) -> None:
        """A tensor without elements has no RMS; torch would divide by their number."""
        for p in (p for group in self.param_groups for p in group["params"]):
            if not p.numel():
                p.grad = None
