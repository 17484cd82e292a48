"""The one shape of an optimizer: torch's, plus hooks that do nothing unless overridden.

The training loop calls the hooks of every optimizer and never asks which one it has. The project's
own optimizers derive from UpdateRule and write their mathematics; torch's derive from Optimizer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from optim.core import one_pass
from optim.core.batch import Batch, Params, State, Tensors, Update, Values
from optim.core.hyperparameters import from_locals, in_updates
from optim.core.schedule import Schedule
from optim.core.width import Powers

COMPILE_FROM = 10_000_000  # parameters; smaller models do not win back the seconds of compiling


class Optimizer(torch.optim.Optimizer):
    """A torch optimizer with the hooks that the training loop calls.

    `param_groups[i]["lr"]` is what the next step uses; `p.grad` is left alone; a parameter
    without a gradient is skipped; lr 0 moves nothing; `state_dict` round-trips bit for bit.

    A step first checks that every gradient has a finite norm. If one has not, it raises an error
    that names the parameter, and leaves parameters and state as they were. The check reads all
    gradients once and waits for the device. A caller that has already checked their norm, as the
    training loop has, sets `check_gradients = False`: the step then reads nothing twice and waits
    for nothing, and the caller is responsible. A torch.amp.GradScaler checks by itself, and skips
    the step.
    """

    check_gradients: bool = True
    whole: tuple[str, ...] = ()  # hyperparameters that cannot differ from one role to another
    keeps_weights = False  # whether its state mirrors the weights: nothing else may move them
    bounds_norms = False  # whether it shrinks weights on purpose: their norms must be free
    averages_weights = False  # whether eval_mode puts other weights in place, such as an average
    width_powers: Powers | None = None  # of lr under muP, for `width_rule`
    ranks = 1  # that share its state and its work
    elsewhere: frozenset[Tensor] = frozenset()  # parameters that other ranks update
    exchange: Callable[[Tensor], Tensor] | None = None  # set while ranks share a step

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        self.register_step_pre_hook(_before_step)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As torch's, which calls it for a copy and when state is loaded; keeps the check.

        As in torch, a group of an earlier version gets the hyperparameters that it lacks.
        """
        own = dict(self.__dict__.get("defaults", state.get("defaults", {})))
        super().__setstate__(state)  # adds a default that not every class has
        self.defaults = own
        for group in self.param_groups:
            for key, value in own.items():
                group.setdefault(key, value)
        if _before_step not in self._optimizer_step_pre_hooks.values():
            self.register_step_pre_hook(_before_step)

    def check_step(self) -> None:
        """Overridden to raise if a step makes no sense now; called before anything changes."""

    @torch.no_grad()
    def refuse_non_finite(self) -> None:
        """Check the norm of every gradient; waits for the device.

        Norms are taken in at least float32, where they overflow from elements of 1e19 on.

        Raises:
            RuntimeError: the norm of a gradient is NaN or infinite; nothing has changed.
        """
        by_type: dict[tuple[torch.dtype, torch.device], list[tuple[str, Tensor]]] = {}
        for index, group in enumerate(self.param_groups):
            for i, (p, name) in enumerate(zip(group["params"], _names(group), strict=True)):
                if p.grad is not None and p.grad.layout == torch.strided and p.grad.numel():
                    named = (f"'{name}'" if name else f"{i} of group {index}", p.grad)
                    by_type.setdefault((p.grad.dtype, p.grad.device), []).append(named)
        for (dtype, _), entries in by_type.items():
            precision = torch.promote_types(dtype, torch.float32)
            norms = torch._foreach_norm([grad for _, grad in entries], 2, precision)
            finite = torch.stack(list(norms)).isfinite()
            if not finite.all():
                bad = [entries[i][0] for i, fine in enumerate(finite.tolist()) if not fine]
                others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
                raise RuntimeError(
                    f"{type(self).__name__}: the gradient of parameter {bad[0]}{others} is not"
                    " finite; nothing was changed: skip this step, or lower lr or clip gradients"
                )

    @classmethod
    def acts_on(cls, role: str, key: str) -> bool:
        """Whether hyperparameter `key` acts on the parameters of `role`, by their group's value."""
        return key not in cls.whole and (key != "split_qkv" or role == "hidden")

    @classmethod
    def width_rule(cls, h: Values) -> Powers | None:
        """By role, the power of the width that lr follows under muP (optim/core/width.py).

        h: the hyperparameters of a role. None: with these no rule is known, and muP is refused.
        """
        return cls.width_powers

    def train_mode(self) -> None:
        """Put the weights where gradients are taken (schedule-free methods, averaging)."""

    def eval_mode(self) -> None:
        """Put the weights where the loss is evaluated (schedule-free methods, averaging)."""

    def train(self) -> None:
        """`train_mode` under the name that other loops call (Hugging Face, accelerate)."""
        self.train_mode()

    def eval(self) -> None:
        """`eval_mode` under the name that other loops call (Hugging Face, accelerate)."""
        self.eval_mode()

    def averages(self) -> tuple[str, ...]:
        """Names of other weights than those of eval_mode that can be evaluated now."""
        return ()

    def average_mode(self, name: str) -> None:
        """Put the weights `name`, one of averages(), in place; train_mode takes them away."""
        raise KeyError(name)

    def evaluations(self) -> Iterator[str]:
        """Put the weights of each evaluation in place in turn, and at the end those of training.

        Yields:
            What the name of their loss ends with: "" for those that are judged, else "_<average>".
        """
        try:
            self.eval_mode()
            yield ""
            for name in self.averages():
                self.average_mode(name)
                yield f"_{name}"
        finally:
            self.train_mode()

    def check_schedule(self, schedule: Schedule) -> str | None:
        """A one-line warning if this schedule works against the method; otherwise None."""
        return None

    def curvature_due(self, step: int) -> bool:
        """Whether update `step`, from 0, needs gradients for labels drawn from the model first."""
        return False

    def update_curvature(self, tokens: int) -> None:
        """Use `p.grad`: the gradient of the mean loss over `tokens` labels drawn from the model."""

    def logits_due(self, step: int) -> bool:
        """Whether update `step`, from 0, needs the largest logit of each attention head."""
        return False

    def update_logits(self, largest: Mapping[str, Tensor]) -> None:
        """Use the largest logits of this update: of each attention by name, (heads,)."""

    def diagnostics(self) -> dict[str, float | Tensor]:
        """Numbers worth a curve, by name, such as an estimated distance.

        What is on the device comes as a tensor of shape (), which no later step changes: so nothing
        waits here for the device.
        """
        return {}

    def withheld(self) -> dict[Tensor, Tensor] | None:
        """Share of the coordinates of each parameter that the next step will clip or mask.

        Called when the gradients are there. None: the rule does neither, or it is not known.
        """
        return None

    def warm_up(self) -> None:
        """Do now what the first step would do only once, such as compiling; changes no number."""

    # ---- for ranks that share the work (optim.core.ownership)

    def update_costs(self) -> list[float]:
        """What the update of each parameter costs, in updates of one element; for `owners`."""
        return [float(p.numel()) for group in self.param_groups for p in group["params"]]

    def by_rank(self, x: Tensor) -> Tensor:
        """`x` of each rank that shares this step, (ranks, *x.shape); alone it is one.

        All ranks call it with tensors of one shape, also those that own no parameter.
        """
        return x[None] if self.exchange is None else self.exchange(x)

    def whole_state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: state_dict(), of all ranks together, on rank 0."""
        return self.state_dict()


class UpdateRule(Optimizer):
    """An optimizer given by the state of a parameter and an update over lists of tensors.

    A subclass is a docstring, a signature and its mathematics (see optim/lion.py):

    - `__init__` has keyword-only, typed hyperparameters and passes its `locals()` on, before it
      makes other variables;
    - `buffers` names the tensors of zeros that it keeps for each parameter; a rule that needs
      other state overrides `init_state`;
    - `update` is the mathematics; `coefficients` adds to lr and decay what else depends on the
      step;
    - `kind` separates parameters of a group that are treated differently.

    The base does the rest: groups, state made at the first gradient, each parameter's own count of
    steps, errors, and one pass over memory (optim.core.one_pass).

    The `h` that these methods get holds the hyperparameters of the group, and "kind".
    """

    compile: bool | None = None  # whether to compile the update; None: from COMPILE_FROM on
    buffers: tuple[str, ...] = ()

    def __init__(self, params: Params, values: Values) -> None:
        """`values`: the `locals()` of the subclass's `__init__`, or its hyperparameters by name.

        Raises:
            ConfigError: one is a fraction of the run; `optim.build_optimizer` makes it updates.
        """
        super().__init__(params, from_locals(values))
        for group in self.param_groups:  # an update counts in updates
            in_updates(type(self), group, None, "optimizer")

    def init_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """Tensors to keep for `p`; called at its first step, when `p.grad` can be read."""
        return {name: torch.zeros_like(p) for name in self.buffers}

    def coefficients(self, h: Values, step: int) -> Values:
        """Numbers that depend on lr or on `step`, from 1: lr, and the factor of weight decay."""
        return {"lr": h["lr"], "decay": 1 - h["lr"] * h.get("weight_decay", 0.0)}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        """The mathematics, in the paper's order, in place, over parallel lists.

        Args:
            params: tensors of any shapes, of one kind, dtype and device.
            grads: their gradients, which may not be written to.
            state: what `init_state` made, by name, as lists parallel to `params`.
            h: the hyperparameters without lr, and "kind": constants of the compiled form.
            c: the coefficients, as numbers or as tensors of shape (): use them as factors and
                divisors, never as `alpha=` or `value=` and never in a condition.
        """
        raise NotImplementedError

    def held_back(self, p: Tensor, state: Mapping[str, Any], h: Values) -> Tensor | None:
        """Where the next update will clip or mask `p`, as booleans; None: the rule does neither.

        state: of `p` before the update, with the number of that update, from 1, as "step".
        """
        return None

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """What sets `p` apart within its group; parameters of one kind are updated together.

        `name` is the parameter's, from the group's "names", or empty. `group` is torch's.
        """
        return ""

    def kinds(self) -> list[tuple[str, str]]:
        """(role, kind) of all parameters, each pair once, in their order."""
        entries = self._entries()
        pairs = ((self.param_groups[i].get("role", ""), h["kind"]) for _, _, i, h in entries)
        return list(dict.fromkeys(pairs))

    def flat(self, kind: str) -> bool:
        """Whether the update of this kind does not depend on the shapes of the tensors."""
        return True

    def compiles(self, kind: str) -> bool:
        """Whether this kind goes through `run`, so that there is something to compile."""
        return True

    def update_cost(self, p: Tensor, h: Values) -> float:
        """What the update of `p` costs, in updates of one element."""
        return float(p.numel())

    def advance(self, batches: list[Batch]) -> None:
        """One step of all parameters; overridden if it needs sums over all of them."""
        for batch in batches:
            self.run(self.update, batch, self.coefficients(batch.h, batch.step))

    def run(self, update: Update, batch: Batch, c: Values) -> None:
        """Call `self.update`, or another function of its form, on a batch; compiled or plain."""
        flat, compiled = self.flat(batch.h["kind"]), self._should_compile()
        scratch = self.__dict__.setdefault("_scratch", {})  # none in a copy
        one_pass.run(update, batch, c, flat=flat, compiled=compiled, scratch=scratch)

    @torch.no_grad()
    def warm_up(self) -> None:
        """Compile what the steps need, on tensors of ones; changes no parameter and no state.

        The trainer calls it before its clock starts, when the parameters are on their device. It
        takes memory for parameter, gradient and state: of a few tensors on a CPU, of all on a GPU.
        """
        if not self._should_compile():
            return
        before = [copy.copy(group) for group in self.param_groups]
        self.advance(self._examples())
        for group, values in zip(self.param_groups, before, strict=True):
            group.clear()
            group.update(values)

    # ---- subclasses do not override what follows

    @torch.no_grad()
    def withheld(self) -> dict[Tensor, Tensor] | None:
        """By `held_back`."""
        if type(self).held_back is UpdateRule.held_back:
            return None
        found = {}
        for p, _, _, h in self._entries():
            if p.grad is not None and p not in self.elsewhere:
                state = self.state.get(p) or {"step": 0, **self.init_state(p, h)}
                where = self.held_back(p, {**state, "step": state["step"] + 1}, h)
                if where is not None:
                    found[p] = where.float().mean()
        return found

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; returns the closure's loss.

        Raises:
            RuntimeError: a gradient is sparse, or not finite (see Optimizer); nothing has changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.advance(self._batches())
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's, but checks the group.

        Raises:
            ValueError: the group is empty, has parameters that cannot be trained, or has other
                than one name for each.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        role = f" (role '{group['role']}')" if "role" in group else ""
        where = f"parameter group {len(self.param_groups) - 1}{role}"
        problem = None
        if not group["params"]:
            problem = f"{where} has no parameters; leave it out"
        elif len(_names(group)) != len(group["params"]):
            problem = f"{where} has {len(group['params'])} parameters, {len(_names(group))} names"
        else:
            for p, name in zip(group["params"], _names(group), strict=True):
                if not p.is_floating_point():
                    problem = (
                        f"{where}: {type(self).__name__} cannot train the {p.dtype} parameter"
                        f" '{name}'; it should be real and floating-point (torch.view_as_real)"
                    )
                self.kind(p, name, group)  # so that its errors come now, not at the first step
        if problem:
            self.param_groups.pop()
            raise ValueError(problem)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but state has the dtype that the rule gives it, and a count is an int.

        torch casts all state to the dtype of the parameter; here only what `init_state` would make
        in it. State that `init_state` does not make keeps the dtype in which it was saved.
        """
        super().load_state_dict(state_dict)
        keys = [key for group in state_dict["param_groups"] for key in group["params"]]
        for key, (p, _, _, h) in zip(keys, self._entries(), strict=True):
            saved, state = state_dict["state"].get(key, {}), self.state.get(p, {})
            if isinstance(state.get("step"), Tensor):  # as torch's own optimizers count
                state["step"] = int(state["step"])
            cast = {
                name: value
                for name, value in saved.items()
                if name != "step" and isinstance(value, Tensor) and value.dtype != state[name].dtype
            }
            own = self._dtypes(p, h) if cast else {}
            state.update({k: v.to(p.device, own.get(k, v.dtype)) for k, v in cast.items()})

    def _dtypes(self, p: Tensor, h: Values) -> dict[str, torch.dtype]:
        """Of the state that `init_state` makes for `p`."""
        example = torch.empty_like(p, device="meta")
        example.grad = torch.empty_like(example)
        return {name: value.dtype for name, value in self.init_state(example, h).items()}

    def update_costs(self) -> list[float]:
        return [self.update_cost(p, h) for p, _, _, h in self._entries()]

    def _should_compile(self) -> bool:
        if self.compile is not None:
            return self.compile
        return sum(p.numel() for group in self.param_groups for p in group["params"]) > COMPILE_FROM

    def _batches(self, steps: int = 1) -> list[Batch]:
        """Parameters with a gradient, in batches; adds `steps` to each one's count."""
        with_gradient = []
        for p, name, index, h in self._entries():
            if p.grad is None or not p.numel():
                continue
            with_gradient.append((p, p.grad, index, h))
            if p.grad.layout != torch.strided:
                raise RuntimeError(
                    f"{type(self).__name__} cannot use the sparse gradient of parameter '{name}';"
                    " an embedding gives a dense one with sparse=False"
                )
        batches: dict[tuple[Any, ...], Batch] = {}
        for p, grad, index, h in with_gradient:
            state = self.state[p]
            if not state:
                state.update(step=0, **self.init_state(p, h))
            state["step"] += steps
            key = (index, h["kind"], state["step"], p.dtype, p.device)
            if key not in batches:
                batches[key] = Batch(h, state["step"], index)
            batches[key].append(p, grad, state)
        return list(batches.values())

    def _entries(self) -> Iterator[tuple[Tensor, str, int, dict[str, Any]]]:
        """Every parameter with its name, the index of its group, and `h` as the methods get it."""
        for index, group in enumerate(self.param_groups):
            known = {key: group[key] for key in self.defaults if key in group}
            kinds: dict[str, dict[str, Any]] = {}
            for p, name in zip(group["params"], _names(group), strict=True):
                kind = self.kind(p, name, group)
                if kind not in kinds:
                    kinds[kind] = {**known, "kind": kind}
                yield p, name, index, kinds[kind]

    def _examples(self) -> list[Batch]:
        """Batches of tensors of ones, as of a first step: enough to compile every later one."""
        alike: dict[tuple[Any, ...], list[Tensor]] = {}
        values = {}
        for p, _, index, h in self._entries():
            if self.compiles(h["kind"]) and p not in self.elsewhere:
                key = (index, h["kind"], p.dtype, p.device)
                alike.setdefault(key, []).append(p)
                values[key] = h
        batches = []
        for key, params in alike.items():
            index, kind, dtype, device = key
            batch = Batch(values[key], 1, index)
            for shape in one_pass.example_shapes(params, self.flat(kind)):
                example = torch.nn.Parameter(torch.ones(shape, dtype=dtype, device=device))
                example.grad = torch.ones_like(example)
                batch.append(example, example.grad, self.init_state(example, values[key]))
            if batch.params:
                batches.append(batch)
        return batches


def _before_step(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch's hook before a step: check now, or at the end of the closure."""
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if not callable(closure):
        _check(optimizer)
        return None

    def checked() -> Any:
        loss = closure()
        _check(optimizer)
        return loss

    return (optimizer, checked, *args[2:]), {k: v for k, v in kwargs.items() if k != "closure"}


def _check(optimizer: Optimizer) -> None:
    optimizer.check_step()
    scaled = getattr(optimizer, "found_inf", None) is not None  # set by a GradScaler
    if optimizer.check_gradients and not scaled:
        optimizer.refuse_non_finite()


def _names(group: Mapping[str, Any]) -> list[str]:
    names = group.get("names") or group.get("param_names")
    return list(names) if names else [""] * len(group["params"])


def optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in `optimizer.state`, step counters included."""
    return sum(t.numel() * t.element_size() for t in _tensors(list(optimizer.state.values())))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
