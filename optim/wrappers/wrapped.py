"""An optimizer with wrappers around it, in the order of the table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from optim.core.around import Around
from optim.core.base import Optimizer
from optim.wrappers.base import BASE_LR, At, Own, Wrapper, wide

RAW = "raw"  # the name of the weights themselves, where an average is judged
_UPDATES = "updates"  # key of a group: updates so far
_TRAINED = "trained"  # beside the wrappers' state, while evaluating: the weights of training


class Wrapped(Around):
    """`inner`, with wrappers around every step; a torch optimizer like any other.

    In one step: the row sees the momentum and the weight decay that the wrappers want; it updates;
    then each wrapper in turn changes every parameter that has a gradient. Between steps and in
    train_mode the parameters are what gradients are taken at.

    The state of a wrapper stands in the state of the parameter, under "<wrapper>.<name>".
    """

    def __init__(self, inner: Optimizer, parts: Mapping[str, Wrapper]) -> None:
        super().__init__(inner)
        self.parts = dict(parts)
        self.own: dict[Tensor, dict[str, Own]] = {}  # by parameter and wrapper
        self.scratch: dict[Tensor, Tensor] = {}  # old weights; kept, since new memory costs time
        for group in self.param_groups:
            group.update({BASE_LR: group["lr"], _UPDATES: 0})
        for part in self.parts.values():
            part.attach(inner)

    @property
    def averages_weights(self) -> bool:  # type: ignore[override]
        """Whether eval_mode or average_mode can put other weights in place."""
        others = (type(part).evaluated is not Wrapper.evaluated for part in self.parts.values())
        return self.inner.averages_weights or any(others)

    @property
    def state(self) -> defaultdict[Tensor, Any]:  # type: ignore[override]
        """The row's state of each parameter together with the wrappers'; a copy."""
        merged: defaultdict[Tensor, Any] = defaultdict(dict)
        for p, values in (*self.inner.state.items(), *((p, _flat(x)) for p, x in self.own.items())):
            merged[p] = {**merged[p], **values}
        return merged

    # ---------------------------------------------------------------- the step

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; returns the closure's loss.

        Raises:
            RuntimeError: a gradient is sparse or not finite, or the weights are those of eval_mode;
                nothing has changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        entries = [(p, at) for p, at in self._entries() if p.grad is not None]
        self._check(entries)
        old = {
            p: self.scratch[p].copy_(p) if p in self.scratch else wide(p).clone()
            for p, at in entries
            if any(part.needs_old(p, self._own(p, key), at) for key, part in self.parts.items())
        }
        self.scratch = old
        for p, at in entries:
            for part in self.parts.values():
                part.before(p, at)
        with self._seen():
            self.inner.step()
        for p, at in entries:
            for key, part in self.parts.items():
                own = self._own(p, key)
                part.after(p, old.get(p), own, at)
                if own:
                    self.own.setdefault(p, {})[key] = own
        for group in self.param_groups:
            group[_UPDATES] += 1
        return loss

    def _check(self, entries: list[tuple[Tensor, At]]) -> None:
        if any(_TRAINED in own for own in self.own.values()):
            raise RuntimeError(
                f"{type(self.row).__name__}.step() in eval mode, where the weights are those that"
                " are evaluated; call train_mode() after evaluating"
            )
        for p, at in entries:
            if p.grad is not None and p.grad.layout != torch.strided:
                raise RuntimeError(
                    f"{type(self.row).__name__} with wrappers cannot use the sparse gradient of"
                    f" parameter '{at.name}'; an embedding gives a dense one with sparse=False"
                )
        if any("before" in vars(type(part)) for part in self.parts.values()):
            self.check_step()
            if self.check_gradients:
                self.refuse_non_finite()

    @contextmanager
    def _seen(self) -> Iterator[None]:
        """The groups as the row finds them; afterwards they are as before."""
        kept = []
        for group in self.param_groups:
            at = At("", group, group[_UPDATES] + 1)
            values = {k: v for part in self.parts.values() for k, v in part.seen(at).items()}
            kept.append((group, {key: group[key] for key in values}))
            group.update(values)
        try:
            yield
        finally:
            for group, values in kept:
                group.update(values)

    def _entries(self) -> Iterator[tuple[Tensor, At]]:
        for group in self.param_groups:
            names = group.get("names") or group.get("param_names") or [""] * len(group["params"])
            for p, name in zip(group["params"], names, strict=True):
                yield p, At(name, group, group[_UPDATES] + 1)

    def _own(self, p: Tensor, key: str) -> Own:
        return self.own.get(p, {}).get(key, {})

    # ---------------------------------------------------------------- which weights are evaluated

    def averages(self) -> tuple[str, ...]:
        """Other weights than those of eval_mode that are worth evaluating now, by name."""
        begun = self._begun()
        names = [RAW] * any(part.judged for part in begun.values())
        return (*names, *(key for key, part in begun.items() if not part.judged))

    def _begun(self) -> dict[str, Wrapper]:
        """The averages of which there is something to evaluate."""
        updates = self.param_groups[0][_UPDATES]
        return {k: x for k, x in self.parts.items() if x.averages and x.begun(updates)}

    def eval_mode(self) -> None:
        """Put the judged weights in place: an average that has begun, or w of the last update."""
        judged = [key for key, part in self._begun().items() if part.judged]
        self._switch(judged[0] if judged else RAW)

    def average_mode(self, name: str) -> None:
        """Put the average `name` in place, or the weights themselves, "raw"."""
        self._switch(name)

    @torch.no_grad()
    def _switch(self, name: str) -> None:
        self.train_mode()
        self.inner.eval_mode()
        others = [key for key, part in self.parts.items() if not part.averages]
        for p, own in self.own.items():
            found = (self.parts[key].evaluated(own[key]) for key in (name, *others) if key in own)
            new = next((weights for weights in found if weights is not None), None)
            if new is not None:
                own[_TRAINED] = {"weights": p.detach().clone()}
                p.copy_(new)

    @torch.no_grad()
    def train_mode(self) -> None:
        """Put the weights back where gradients are taken."""
        self.inner.train_mode()
        for p, own in self.own.items():
            if kept := own.pop(_TRAINED, None):
                p.copy_(kept["weights"])

    # ---------------------------------------------------------------- state and the other hooks

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.update({BASE_LR: group["lr"], _UPDATES: self.param_groups[0][_UPDATES]})

    def state_dict(self) -> dict[str, Any]:
        """torch's form; see the class for the names of the wrappers' state."""
        saved = self.inner.state_dict()
        state = dict(saved["state"])
        for index, (p, _) in enumerate(self._entries()):
            if p in self.own:
                state[index] = {**state.get(index, {}), **_flat(self.own[p])}
        return {**saved, "state": state}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; a wrapper whose state is not there begins at its next step."""
        own: dict[Any, dict[str, Own]] = {}
        state: dict[Any, Any] = {}
        for index, values in state_dict["state"].items():
            rows: Own = {}
            for name, value in values.items():
                key, dot, inside = str(name).partition(".")
                if dot and key in (*self.parts, _TRAINED):
                    own.setdefault(index, {}).setdefault(key, {})[inside] = value
                else:
                    rows[name] = value
            if rows or index not in own:
                state[index] = rows
        self.inner.load_state_dict({**state_dict, "state": state})
        for group in self.param_groups:
            group.update({BASE_LR: group["lr"], _UPDATES: 0} | group)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        self.own = {
            p: {key: _placed(values, p) for key, values in own[index].items()}
            for index, (p, _) in zip(saved, self._entries(), strict=True)
            if index in own
        }

    def diagnostics(self) -> dict[str, float | Tensor]:
        group = self.param_groups[0]
        at = At("", group, max(1, group[_UPDATES]))
        own = {k: v for part in self.parts.values() for k, v in part.diagnostics(at).items()}
        return {**self.inner.diagnostics(), **own}

    def withheld(self) -> dict[Tensor, Tensor] | None:
        """As the row's, with the momentum that the row will see."""
        with self._seen():
            return self.inner.withheld()

    def warm_up(self) -> None:
        """As the row's; what it compiles is what it will see."""
        with self._seen():
            self.inner.warm_up()


def _flat(own: Mapping[str, Own]) -> dict[str, Any]:
    return {f"{key}.{name}": value for key, values in own.items() for name, value in values.items()}


def _placed(values: Own, p: Tensor) -> Own:
    """Saved values as this parameter keeps them: on its device, in at least float32."""
    dtype = torch.promote_types(p.dtype, torch.float32)
    return {
        name: v.detach().to(p.device, dtype, copy=True) if isinstance(v, Tensor) else v
        for name, v in values.items()
    }
