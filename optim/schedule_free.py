"""Schedule-free SGD and AdamW: averaging in place of a decaying learning rate.

Three sequences: z takes the steps, x is a weighted average of the z, and gradients are taken at y
between the two. With gamma_t the lr of step t and k that step's number from 1:

    y_t     = (1 - beta) * z_t + beta * x_t                  (gradient g_t is taken here)
    z_{t+1} = z_t - gamma_t * u_t                            (u_t: the base method's direction)
    w_t     = k^r * gamma_t^weight_lr_power
    x_{t+1} = (1 - c_t) * x_t + c_t * z_{t+1},               c_t = w_t / (w_1 + ... + w_t)

The weights p hold y while training and x while evaluating. z is state, and x lies on the line
through z and y. In training, as an update of p = y:

    p <- p + c_t * (z - p) - gamma_t * (1 - beta * (1 - c_t)) * u_t
    z <- z - gamma_t * u_t
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optim.core.base import UpdateRule
from optim.core.batch import Batch, Params, State, Tensors, Values
from optim.core.hyperparameters import Beta, NonNegative, OpenRatio
from optim.core.schedule import Schedule
from optim.core.width import ELEMENTWISE, GRADIENT


class _ScheduleFree(UpdateRule):
    """What the methods below share: the weights of the average, and the switch between y and x.

    A subclass writes `update`, and `interpolation` with its name for that hyperparameter.
    """

    keeps_weights = averages_weights = True

    @staticmethod
    def interpolation(h: Values) -> float:
        """The coefficient beta of x in y."""
        raise NotImplementedError

    def eval_mode(self) -> None:
        """Put x into the weights and keep y in the state, so that training resumes bit for bit."""
        self._switch("eval")

    def train_mode(self) -> None:
        """Put y back into the weights."""
        self._switch("train")

    @torch.no_grad()
    def _switch(self, mode: str) -> None:
        for group in self.param_groups:
            if group.get("mode", "train") == mode:
                continue
            group["mode"] = mode
            beyond = 1 - 1 / self.interpolation(group)
            for p in group["params"]:
                state = self.state.get(p)
                if not state:
                    continue  # no step yet: x, y and z are one
                if mode == "eval":
                    state["y"] = p.detach().clone()
                    p.lerp_(state["z"], beyond)
                else:
                    p.copy_(state.pop("y"))

    def check_schedule(self, schedule: Schedule) -> str | None:
        """Warns of a decay, which does the work of the average again; a warm-up is fine."""
        steps = zip(schedule.factors, schedule.factors[1:-1], strict=False)
        if not any(later < earlier for earlier, later in steps):
            return None
        return (
            f"{type(self).__name__} replaces the decay of the learning rate by an average, and"
            f" schedule '{schedule.name}' decays it too, down to {schedule.last_factor:.3g} of lr:"
            " both act; its papers use a constant lr after warm-up (configs/schedule/constant.toml)"
        )

    def init_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """z starts at the weights."""
        return {"z": p.detach().clone(), **super().init_state(p, h)}

    def check_step(self) -> None:
        """In eval mode the weights are x, where no gradient was taken.

        Raises:
            RuntimeError: the optimizer is in eval mode.
        """
        if any(group.get("mode") == "eval" for group in self.param_groups):
            raise RuntimeError(
                f"{type(self).__name__}.step() in eval mode, where the weights are the average;"
                " call train_mode() after evaluating"
            )

    def advance(self, batches: list[Batch]) -> None:
        """Give this step its weight in the averages, then do it.

        There is a sum of weights for each group and each number of steps, so that a parameter whose
        first gradient comes late begins an average of its own.
        """
        sums: dict[int, dict[int, float]] = {}
        for batch in batches:
            group = self.param_groups[batch.index]
            earlier = group.get("weight_sums", {}).get(batch.step - 1, 0.0)
            weight = batch.step ** group["r"] * group["lr"] ** group["weight_lr_power"]
            weight *= group["lr"] > 0  # power 0: a step that does not move is no step
            total = sums.setdefault(batch.index, {})[batch.step] = earlier + weight
            share = weight / total if total else 0.0
            move_y = group["lr"] * (1 - self.interpolation(group) * (1 - share))
            c = {**self.coefficients(batch.h, batch.step), "share": share, "move_y": move_y}
            self.run(self.update, batch, c)
        for index, added in sums.items():
            group = self.param_groups[index]
            counts = {self.state[p]["step"] for p in group["params"] if self.state.get(p)}
            known = {**group.get("weight_sums", {}), **added}
            group["weight_sums"] = {step: known[step] for step in known if step in counts}


class ScheduleFreeSGD(_ScheduleFree):
    """SGD whose iterates are averaged, in place of momentum and of a decaying learning rate.

    Source: Defazio et al., "The Road Less Scheduled", arXiv:2405.15682, section 1, equations
    of x, y and z; weights of the average as there for a warm-up.

        u <- g + weight_decay * y
        p <- p + c * (z - p) - lr * (1 - momentum * (1 - c)) * u     (p is y)
        z <- z - lr * u
        x <- (1 - c) * x + c * z,    c = w / (sum of w so far),    w = k^r * lr^weight_lr_power

    Differs: the weight of a step is from its own lr, as in the paper; the schedulefree package
    takes the largest lr so far, which is the same until lr decays. The schedule warms up; there is
    no hyperparameter for it. After an evaluation the package finds y by extrapolation, which costs
    its last bit; here y is kept.
    Tuning: the authors advise an lr 10 to 50 times that of SGD with momentum and a decaying
    schedule, after a warm-up constant. `momentum` is the interpolation beta: 0.9 to 0.98, larger
    for longer runs.
    State: z: 4 bytes per parameter; y too while evaluating.
    """

    width_powers = GRADIENT

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1.0,
        momentum: OpenRatio = 0.9,  # at 0, y is z and x is lost
        weight_decay: NonNegative = 0.0,
        r: NonNegative = 0.0,
        weight_lr_power: NonNegative = 2.0,
    ) -> None:
        super().__init__(params, locals())

    @staticmethod
    def interpolation(h: Values) -> float:
        """`momentum`."""
        return float(h["momentum"])

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        u = torch._foreach_mul(params, h["weight_decay"])
        torch._foreach_add_(u, grads)
        _move(params, state["z"], u, c)


class ScheduleFreeAdamW(_ScheduleFree):
    """AdamW with averaging of its iterates in place of momentum and of a decaying learning rate.

    Source: Defazio et al., "The Road Less Scheduled", arXiv:2405.15682, Algorithm 1, in the form
    of the authors' schedulefree package, version 1.4.1.

        v <- beta2 * v + (1 - beta2) * g^2
        u <- g / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * y
        p <- p + c * (z - p) - lr * (1 - beta1 * (1 - c)) * u        (p is y)
        z <- z - lr * u
        x <- (1 - c) * x + c * z,    c = w / (sum of w so far),    w = k^r * lr^weight_lr_power

    Differs: Algorithm 1 of the paper corrects the bias of v through lr, and so through the weights
    of the average; here, as in the package, the correction is within the square root. From the
    package: the weight of a step is from its own lr, as in the paper, not from the largest lr so
    far, which is the same until lr decays; the schedule warms up, and there is no hyperparameter
    for it; y is kept during an evaluation, where the package finds it again to within its last bit.
    Tuning: lr 1 to 10 times AdamW's with a decaying schedule, then a warm-up and a constant lr;
    beta1 0.9, up to 0.95 or 0.98 for long runs. weight_decay acts at y.
    State: z, exp_avg_sq: 8 bytes per parameter; y too while evaluating.
    """

    buffers = ("exp_avg_sq",)
    width_powers = ELEMENTWISE

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 2.5e-3,
        betas: tuple[OpenRatio, Beta] = (0.9, 0.999),  # as momentum of ScheduleFreeSGD
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.0,
        r: NonNegative = 0.0,
        weight_lr_power: NonNegative = 2.0,
    ) -> None:
        super().__init__(params, locals())

    @staticmethod
    def interpolation(h: Values) -> float:
        """`beta1`."""
        return float(h["betas"][0])

    def coefficients(self, h: Values, step: int) -> Values:
        """lr, and the bias correction of the root."""
        return {**super().coefficients(h, step), "root": math.sqrt(1 - h["betas"][1] ** step)}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        (_, beta2), v = h["betas"], state["exp_avg_sq"]
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
        root = torch._foreach_sqrt(v)
        torch._foreach_div_(root, c["root"])
        torch._foreach_add_(root, h["eps"])
        u = torch._foreach_div(grads, root)
        if h["weight_decay"]:
            torch._foreach_add_(u, torch._foreach_mul(params, h["weight_decay"]))
        _move(params, state["z"], u, c)


def _move(y: Tensors, z: Tensors, u: tuple[Tensor, ...], c: Values) -> None:
    """The last two lines of the update; overwrites `u`."""
    towards = torch._foreach_sub(z, y)
    torch._foreach_mul_(towards, c["share"])
    torch._foreach_add_(y, towards)
    torch._foreach_sub_(y, torch._foreach_mul(u, c["move_y"]))
    torch._foreach_mul_(u, c["lr"])
    torch._foreach_sub_(z, u)
