"""The one shape of an optimizer: torch's, plus hooks that do nothing unless overridden.

The training loop calls the hooks for every optimizer, so that it never asks which one it has.
An optimizer of our own derives from UpdateRule and writes its mathematics; torch's derive from
Optimizer.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optim.core import one_pass
from optim.core.one_pass import Batch, Update

if TYPE_CHECKING:
    from optim import Schedule

COMPILE_FROM = 10_000_000  # parameters; below, the seconds of compiling are not won back


class Optimizer(torch.optim.Optimizer):
    """A torch optimizer with the hooks that the training loop calls.

    `param_groups[i]["lr"]` is what the next step uses; `p.grad` is left alone; a parameter
    without a gradient is skipped; lr 0 moves nothing; `state_dict` round-trips bit for bit.

    Before a step the gradients are looked at: one whose norm is not finite is an error that names
    its parameter, and parameters and state are as they were. That reads all gradients once and
    waits for the device. A caller that knows their norm already, as the training loop does, says
    so by `check_gradients = False`: then nothing is read twice and nothing waits.
    """

    check_gradients: bool = True

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        self.register_step_pre_hook(_look_first)

    @torch.no_grad()
    def refuse_non_finite(self) -> None:
        """Raise RuntimeError if the norm of a gradient is NaN or infinite; waits for the device.

        Norms are taken in at least float32, where they overflow from elements of 1e19 on.
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

    def train_mode(self) -> None:
        """Put the weights where gradients are taken (schedule-free methods, averaging)."""

    def eval_mode(self) -> None:
        """Put the weights where the loss is evaluated (schedule-free methods, averaging)."""

    def check_schedule(self, schedule: Schedule) -> str | None:
        """What in this schedule works against the method, as one line; None if nothing does."""
        return None

    def curvature_due(self, step: int) -> bool:
        """Whether update `step`, from 0, begins with gradients of labels the model has drawn."""
        return False

    def update_curvature(self, tokens: int) -> None:
        """Take in `p.grad`: of the mean loss over the batch's `tokens`, for labels so drawn."""

    def diagnostics(self) -> dict[str, float]:
        """Numbers worth a curve, by name: an estimated distance, the RMS of the update."""
        return {}

    def warm_up(self) -> None:
        """Do what the first step would do but once, such as compiling; changes no number."""


class UpdateRule(Optimizer):
    """An optimizer given by the state of a parameter and an update over lists of tensors.

    A subclass writes a keyword-only, typed `__init__`, which passes a dict of its hyperparameters
    on to torch's, and the methods `init_state`, `coefficients` and `update`; one that treats
    parameters differently also `kind`. The rest is here: groups, lazy state, each parameter's own
    count of steps, errors, and one pass over memory (optim.core.one_pass).

    The `group` that these methods get holds the group's hyperparameters and "kind".
    """

    compile: bool | None = None  # whether to compile the update; None: from COMPILE_FROM on

    @abstractmethod
    def init_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Tensors to keep for `p`; called at its first step, when `p.grad` is there to be read."""

    def coefficients(self, group: Mapping[str, Any], step: int) -> Mapping[str, float | Tensor]:
        """Numbers of this step that depend on lr or on `step`, which counts from 1."""
        return {"lr": group["lr"]}

    @staticmethod
    @abstractmethod
    def update(
        params: list[Tensor],
        grads: list[Tensor],
        state: dict[str, list[Tensor]],
        group: Mapping[str, Any],
        coefficients: Mapping[str, Any],
    ) -> None:
        """The mathematics, in the paper's order, in place, over parallel lists.

        `group` is without lr. The gradients may not be written to. Coefficients are numbers or
        tensors without dimensions: factors and divisors, never `alpha=` or `value=`.
        """

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """What sets `p` apart within its group; parameters of one kind are updated together.

        `name` is the parameter's, from the group's "names"; empty where there are none.
        """
        return ""

    def flat(self, kind: str) -> bool:
        """Whether the update of this kind does not depend on the shapes of the tensors."""
        return True

    def refuse(self) -> None:
        """Raise where a step makes no sense; called before it, when nothing has changed yet."""

    def warms(self, kind: str) -> bool:
        """Whether this kind goes through `run`, so that there is something to compile for it."""
        return True

    def advance(self, batches: list[Batch]) -> None:
        """One step of all parameters; overridden where one step needs sums over all of them."""
        for batch in batches:
            self.run(self.update, batch, self.coefficients(batch.group, batch.step))

    def run(self, update: Update, batch: Batch, coefficients: Mapping[str, float | Tensor]) -> None:
        """Call `update` (a function of its own right, of the form of `self.update`) on a batch."""
        flat, compiled = self.flat(batch.group["kind"]), self._compiles()
        one_pass.run(update, batch, coefficients, flat=flat, compiled=compiled)

    # ---- what follows is not overridden

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
        self.refuse()
        self.advance(self._batches())
        return loss

    @torch.no_grad()
    def warm_up(self) -> None:
        """Compile what the steps need, on tensors of ones; changes no parameter and no state.

        The trainer calls it before its clock starts, after the parameters are on their device.
        Takes memory for parameter, gradient and state of a few tensors on a CPU, of all on a GPU.
        """
        if not self._compiles():
            return
        before = [copy.copy(group) for group in self.param_groups]
        self.advance(self._examples())
        for group, values in zip(self.param_groups, before, strict=True):
            group.clear()
            group.update(values)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; refuses a group that is empty or of tensors it cannot train."""
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
                self.kind(p, name, group)  # what it refuses is refused now, not at the first step
        if problem:
            self.param_groups.pop()
            raise ValueError(problem)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but state keeps the dtype it was saved in, whatever the parameter's."""
        super().load_state_dict(state_dict)
        saved, own = state_dict["param_groups"], self.param_groups
        for theirs, ours in zip(saved, own, strict=True):
            for key, p in zip(theirs["params"], ours["params"], strict=True):
                for name, value in state_dict["state"].get(key, {}).items():
                    if isinstance(value, Tensor) and value.dtype != self.state[p][name].dtype:
                        self.state[p][name] = value.to(p.device)

    def _compiles(self) -> bool:
        if self.compile is not None:
            return self.compile
        return sum(p.numel() for group in self.param_groups for p in group["params"]) > COMPILE_FROM

    def _batches(self, steps: int = 1) -> list[Batch]:
        """Parameters with a gradient by what must be equal in a batch; counts their `steps`."""
        with_gradient = []
        for p, name, index, group in self._entries():
            if p.grad is None:
                continue
            with_gradient.append((p, p.grad, index, group))
            if p.grad.layout != torch.strided:
                raise RuntimeError(
                    f"{type(self).__name__} cannot use the sparse gradient of parameter '{name}';"
                    " an embedding gives a dense one with sparse=False"
                )
        batches: dict[tuple[Any, ...], Batch] = {}
        for p, grad, index, group in with_gradient:
            state = self.state[p]
            if not state:
                state.update(step=0, **self.init_state(p, group))
            state["step"] += steps
            key = (index, group["kind"], state["step"], p.dtype, p.device)
            if key not in batches:
                batches[key] = Batch(group, state["step"], index)
            batches[key].append(p, grad, state)
        return list(batches.values())

    def _entries(self) -> Iterator[tuple[Tensor, str, int, dict[str, Any]]]:
        """Parameter, name, index of its group, and what the methods above get as the group."""
        for index, group in enumerate(self.param_groups):
            known = {key: group[key] for key in self.defaults if key in group}
            kinds: dict[str, dict[str, Any]] = {}
            for p, name in zip(group["params"], _names(group), strict=True):
                kind = self.kind(p, name, group)
                if kind not in kinds:
                    kinds[kind] = {**known, "kind": kind}
                yield p, name, index, kinds[kind]

    def _examples(self) -> list[Batch]:
        """Batches as of a first step, of tensors of ones: enough to compile every later one."""
        alike: dict[tuple[Any, ...], list[Tensor]] = {}
        groups = {}
        for p, _, index, group in self._entries():
            if self.warms(group["kind"]):
                key = (index, group["kind"], p.dtype, p.device)
                alike.setdefault(key, []).append(p)
                groups[key] = group
        batches = []
        for key, params in alike.items():
            index, kind, dtype, device = key
            batch = Batch(groups[key], 1, index)
            for shape in one_pass.example_shapes(params, self.flat(kind)):
                example = torch.nn.Parameter(torch.ones(shape, dtype=dtype, device=device))
                example.grad = torch.ones_like(example)
                batch.append(example, example.grad, self.init_state(example, groups[key]))
            if batch.params:
                batches.append(batch)
        return batches


def _look_first(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Before a step (torch's hook): look at the gradients, or have its closure do so at its end."""
    if not optimizer.check_gradients:
        return None
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if not callable(closure):
        optimizer.refuse_non_finite()
        return None

    def checked() -> Any:
        loss = closure()
        optimizer.refuse_non_finite()
        return loss

    return (optimizer, checked, *args[2:]), {k: v for k, v in kwargs.items() if k != "closure"}


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
