"""What an update works on: parameters that take the same step together, and names for its types.

    update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None

`h` holds the hyperparameters of the group, without lr, and "kind". `c` holds the coefficients: the
numbers that depend on lr or on the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Params = Iterable[Any]  # what torch.optim takes: tensors, (name, tensor) pairs or groups
Tensors = list[Tensor]  # one entry for each parameter of a batch
State = dict[str, Tensors]  # by name; each list is parallel to the parameters
Values = Mapping[str, Any]
Update = Callable[[Tensors, Tensors, State, Values, Values], None]
Item = tuple[Tensor, Tensor, dict[str, Tensor]]  # parameter, gradient, state

STACKED = 1 << 28  # elements of one stack: 1 GiB of float32


@dataclass
class Batch:
    """Parameters that take the same step together: of one group, kind, step, dtype and device."""

    h: Values  # the group's hyperparameters, lr among them, and "kind"
    step: int  # number of the update that comes next, from 1
    index: int = 0  # of the group in the optimizer's param_groups
    params: Tensors = field(default_factory=list)
    grads: Tensors = field(default_factory=list)
    state: State = field(default_factory=dict)

    def append(self, p: Tensor, grad: Tensor, state: Values) -> None:
        """Add a parameter with its gradient and its state, leaving out the entry "step"."""
        self.params.append(p)
        self.grads.append(grad)
        for name, value in state.items():
            if name != "step":
                self.state.setdefault(name, []).append(value)

    def item(self, i: int) -> Item:
        """Parameter `i` with its gradient and its state."""
        return self.params[i], self.grads[i], {k: values[i] for k, values in self.state.items()}

    def items(self) -> Iterator[Item]:
        """Every parameter with its gradient and its state."""
        return map(self.item, range(len(self.params)))

    def stacks(self, together: bool | None = None) -> Iterator[Item]:
        """As `items`, but with those of equal shapes stacked along a new first dimension.

        What is written into parameter and state is kept. together: None means on a GPU; a stack is
        then a copy of at most STACKED elements, state included. Otherwise it holds one of them, as
        views: on a CPU one large matrix is work enough, a copy is saved, and no bit of a matrix
        depends on which others come with it.
        """
        shapes: dict[tuple[torch.Size, ...], list[int]] = {}
        for i, p in enumerate(self.params):
            key = (p.shape, *(values[i].shape for values in self.state.values()))
            shapes.setdefault(key, []).append(i)
        for indices in self._parts(shapes.values(), together):
            if len(indices) == 1:
                p, g, state = self.item(indices[0])
                yield p[None], g[None], {name: value[None] for name, value in state.items()}
                continue
            p, g = (torch.stack([ts[i] for i in indices]) for ts in (self.params, self.grads))
            lists = {name: [values[i] for i in indices] for name, values in self.state.items()}
            state = {name: torch.stack(values) for name, values in lists.items()}
            yield p, g, state
            torch._foreach_copy_([self.params[i] for i in indices], list(p))
            for name, values in lists.items():
                torch._foreach_copy_(values, list(state[name]))

    def _parts(self, alike: Iterable[list[int]], together: bool | None) -> Iterator[list[int]]:
        """Split each list into the fewest parts that may be stacked, as equal as can be."""
        for indices in alike:
            p, g, state = self.item(indices[0])
            joined = p.is_cuda if together is None else together
            size = sum(t.numel() for t in (p, g, *state.values()))
            most = max(1, STACKED // size) if joined else 1
            number = -(-len(indices) // most)
            yield from (indices[i::number] for i in range(number))

    def constants(self) -> dict[str, Any]:
        """`h` as an update sees it: without lr, which reaches the update as a coefficient."""
        return {key: value for key, value in self.h.items() if key != "lr"}
