"""Run an update of lists of tensors in one pass over memory, instead of one pass per operation.

An optimizer's step is bound by memory: AdamW has to move 28 bytes per parameter, and its dozen
`torch._foreach_*` operations, run one after the other, move five times as much. torch.compile
fuses them. The update is one function either way; here is how it is called:

- on a CPU, large tensors one by one, as rows of a fixed width, through one kernel compiled for any
  number of rows. Measured for AdamW's update on GPT-2 124M, two cores: 3 to 10 seconds of
  compilation and a step as long as torch's fused one. All 148 tensors in one graph: 75 seconds,
  and a slower step. A kernel for each of the nine shapes: 4 to 16 seconds, no faster. Small tensors
  go as one list through the plain operations: starting a kernel for each would take longer.
- on a GPU, the lists as they are, which become a few kernels over many tensors: a kernel for each
  tensor would be bound by its launch.

Numbers that change between steps (lr, powers of the betas) are tensors without dimensions on the
CPU, so that they are read when a kernel runs; all else in a group is a constant in the kernel.
"""

from __future__ import annotations

import functools
import math
import types
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# update(params, grads, state, group, coefficients)
Update = Callable[
    [list[Tensor], list[Tensor], dict[str, list[Tensor]], Mapping[str, Any], Mapping[str, Any]],
    None,
]

SMALL = 1 << 15  # elements; below it a tensor's operations cost their start, not their memory
WIDTH = 1 << 12  # elements; torch.compile sums up to so many without a data structure for it


@dataclass
class Batch:
    """Parameters that take the same step together: of one group, kind, step, dtype and device."""

    group: Mapping[str, Any]  # the group's hyperparameters, "lr" and "kind"
    step: int  # of the update about to be done, from 1
    index: int = 0  # of the group in the optimizer's param_groups
    params: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)
    state: dict[str, list[Tensor]] = field(default_factory=dict)  # lists parallel to params

    def append(self, p: Tensor, grad: Tensor, state: Mapping[str, Any]) -> None:
        """Add a parameter with its state, of which `step` is left out."""
        self.params.append(p.data)
        self.grads.append(grad.data)
        for name, value in state.items():
            if name != "step":
                self.state.setdefault(name, []).append(value)

    def items(self) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
        """One parameter after the other."""
        for i, (p, grad) in enumerate(zip(self.params, self.grads, strict=True)):
            yield p, grad, {name: values[i] for name, values in self.state.items()}

    def constants(self) -> dict[str, Any]:
        """What an update sees of the group: all but lr, which reaches it as a coefficient."""
        return {key: value for key, value in self.group.items() if key != "lr"}


def run(
    update: Update,
    batch: Batch,
    coefficients: Mapping[str, float | Tensor],
    *,
    flat: bool,
    compiled: bool,
) -> None:
    """Call `update` on `batch`: as it is, or compiled.

    Args:
        update: works in place, on tensors of any shape if `flat`; called with the coefficients as
            numbers when it is not compiled, and as tensors without dimensions when it is.
        batch: whose gradients are not written to.
        coefficients: may be used with torch._foreach_mul and _foreach_div, or in plain arithmetic.
        flat: whether a tensor's shape is irrelevant, so that it may be given as a vector.
        compiled: whether to compile where a compiler works.
    """
    plain = batch
    if compiled:
        constants = frozen(batch.constants())
        if batch.params[0].device.type == "cpu":
            plain = _one_by_one(update, batch, coefficients, constants, flat)
        elif _lists(update, batch, coefficients, constants):
            return
    if plain.params:
        update(plain.params, plain.grads, plain.state, plain.constants(), coefficients)


def frozen(constants: Mapping[str, Any]) -> tuple[tuple[str, Hashable], ...]:
    """`constants` as a key: lists, as TOML and JSON have them, as tuples."""
    return tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in constants.items())


def _one_by_one(
    update: Update, batch: Batch, coefficients: Mapping[str, Any], constants: Any, flat: bool
) -> Batch:
    """Update the large tensors; returns a batch of the others."""
    rest = Batch(batch.group, batch.step, batch.index)
    scalars = _tensors(coefficients, batch.params[0].dtype)
    names = (tuple(batch.state), tuple(coefficients))
    for p, grad, state in batch.items():
        tensors = [p, grad, *state.values()]
        if p.numel() < SMALL or not all(t.is_contiguous() for t in tensors):
            rest.append(p, grad, state)
            continue
        whole = [t.shape == p.shape for t in tensors]
        shape = rows(p.numel()) if flat else p.shape
        if flat:  # without .data a view would be guarded, and recompiled, by what it is a view of
            tensors = [t.view(shape).data if w else t for t, w in zip(tensors, whole, strict=True)]
        key = (tuple(whole), shape[1:], p.dtype, grad.dtype)
        if not _compiled(update, constants, names, key, flat)([tensors], scalars):
            rest.append(p, grad, state)
    return rest


def rows(numel: int) -> tuple[int, int]:
    """A vector as rows of a fixed, small power of two: a row's sum is then kept in registers."""
    width = math.gcd(numel, WIDTH)
    return (numel // width, width) if width >= 64 else (1, numel)


def example_shape(p: Tensor, flat: bool) -> torch.Size | None:
    """Of a tensor for which the same function is compiled as for `p`; None if none is for it."""
    if p.device.type != "cpu":
        return p.shape
    if p.numel() < SMALL:
        return None
    if not flat:
        return p.shape
    number, width = rows(p.numel())
    return torch.Size([width * (2 * SMALL // width + 1 if number > 1 else 1)])


def _lists(update: Update, batch: Batch, coefficients: Mapping[str, Any], constants: Any) -> bool:
    """Update the whole lists at once; False where no compiler works."""
    scalars = _tensors(coefficients, batch.params[0].dtype)
    names = (tuple(batch.state), tuple(coefficients))
    tensors = [[p, grad, *state.values()] for p, grad, state in batch.items()]
    key = tuple((p.shape, p.dtype, p.device, g.dtype) for p, g, *_ in tensors)
    return _compiled(update, constants, names, key, False)(tensors, scalars)


def _tensors(coefficients: Mapping[str, Any], dtype: torch.dtype) -> list[Tensor]:
    """In the precision of the arithmetic, which for 16-bit tensors is float32."""
    precision = torch.float64 if dtype == torch.float64 else torch.float32
    return [
        x if isinstance(x, Tensor) else torch.tensor(x, dtype=precision)
        for x in coefficients.values()
    ]


class _Compiled:
    """A compiled update, called with [p, grad, *state] of each parameter and the coefficients."""

    def __init__(self, call: Callable[[list[list[Tensor]], list[Tensor]], None]) -> None:
        self.call = call
        self.works: bool | None = None  # None: not called yet

    def __call__(self, tensors: list[list[Tensor]], scalars: list[Tensor]) -> bool:
        """Do the update; False where it cannot be compiled, and nothing was done."""
        if self.works is None:
            try:
                for t in tensors[0] if len(tensors) == 1 else []:
                    torch._dynamo.maybe_mark_dynamic(t, 0)
                self.call(tensors, scalars)
            except Exception as error:  # no compiler, or one of a hundred ways it can fail
                self.works = False
                reason = " ".join(f"{type(error).__name__}: {error}".split("\n")[:2])
                warnings.warn(
                    "optimizer steps are not compiled and so take several times as long;"
                    f" torch.compile needs g++ on a CPU and triton on a GPU ({reason})",
                    RuntimeWarning,
                    stacklevel=2,
                )
            else:
                self.works = True
        elif self.works:
            self.call(tensors, scalars)
        return self.works


@functools.cache
def _compiled(
    update: Update,
    constants: tuple[tuple[str, Hashable], ...],
    names: tuple[tuple[str, ...], tuple[str, ...]],
    layout: Hashable,
    flat: bool,
) -> _Compiled:
    """`update` compiled for these constants, names of state and of coefficients, and layout.

    A step with other constants or another layout is another function: none is ever recompiled.
    """
    group = dict(constants)
    state_names, coefficient_names = names

    def call(tensors: list[list[Tensor]], scalars: list[Tensor]) -> None:
        params, grads, *state = (list(column) for column in zip(*tensors, strict=True))
        named = dict(zip(state_names, state, strict=True))
        update(params, grads, named, group, dict(zip(coefficient_names, scalars, strict=True)))

    # torch.compile keeps what it has compiled with the code object, a few for each at most; a
    # code object of its own lets any number of optimizers live in a process.
    code = call.__code__.replace(co_name=f"{update.__qualname__}_{hash(layout):x}")
    own = types.FunctionType(code, call.__globals__, closure=call.__closure__)
    # Whatever is needed in a second pass, after a norm, is computed again from its inputs: a
    # temporary of the size of the embedding costs more than the whole update.
    options: dict[str, Any] = {"realize_opcount_threshold": 1000, "realize_reads_threshold": 100}
    if flat:  # whole, contiguous vectors of known dtype leave nothing to check at every call
        options["guard_filter_fn"] = lambda guards: [False] * len(guards)
    return _Compiled(torch.compile(own, fullgraph=True, options=options))
