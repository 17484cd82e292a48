"""Run an update of lists of tensors in one pass over memory, instead of one pass per operation.

An optimizer's step is bound by memory: AdamW has to move 28 bytes per parameter, and its dozen
`torch._foreach_*` operations, run one after the other, move five times as much. torch.compile
fuses them. The update is one function either way; here is how it is called:

- on a CPU, large tensors one after the other, as rows of a fixed width, through one kernel compiled
  for any number of rows, and one for TOGETHER tensors of a shape: between two kernels memory idles
  while Python, whose own code has just been driven out of the cache, prepares the next. Measured
  for AdamW's update on GPT-2 124M, two cores: 3 to 10 seconds of compilation and a step as long as
  torch's fused one. All 148 tensors in one graph: 75 seconds, and a slower step. A kernel for each
  of the nine shapes: 4 to 16 seconds, no faster. Small tensors go as one list through the plain
  operations: starting a kernel for each would take longer.
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
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor

# update(params, grads, state, group, coefficients)
Update = Callable[
    [list[Tensor], list[Tensor], dict[str, list[Tensor]], Mapping[str, Any], Mapping[str, Any]],
    None,
]

SMALL = 1 << 15  # elements; below it a tensor's operations cost their start, not their memory
TOGETHER = 4  # large tensors of a shape in one kernel
WIDTH = 1 << 12  # elements; torch.compile sums up to so many without a data structure for it


Item = tuple[Tensor, Tensor, dict[str, Tensor]]  # parameter, gradient, state


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
        self.params.append(p)
        self.grads.append(grad)
        for name, value in state.items():
            if name != "step":
                self.state.setdefault(name, []).append(value)

    def item(self, i: int) -> Item:
        """One of the parameters."""
        return self.params[i], self.grads[i], {k: values[i] for k, values in self.state.items()}

    def items(self) -> Iterator[Item]:
        """One parameter after the other."""
        return map(self.item, range(len(self.params)))

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
    if all(p.numel() < SMALL for p in batch.params):
        return batch
    rest = Batch(batch.group, batch.step, batch.index)
    scalars = _tensors(coefficients, batch.params[0].dtype)
    names = (tuple(batch.state), tuple(coefficients))
    alike: dict[tuple[Any, ...], list[tuple[int, Any]]] = {}
    columns = [batch.params, batch.grads, *batch.state.values()]
    for i, row in enumerate(zip(*columns, strict=True)):
        if row[0].numel() < SMALL or not all(map(Tensor.is_contiguous, row)):
            rest.append(*batch.item(i))
        else:
            like = (row[0].shape, tuple(map(Tensor.numel, row)), tuple(t.dtype for t in row))
            alike.setdefault(like, []).append((i, row))
    precision = tuple(x.dtype for x in scalars)
    for (shape, sizes, dtypes), found in alike.items():
        whole = tuple(size == sizes[0] for size in sizes)
        view = rows(sizes[0]) if flat else shape
        for some in together(found, flat):
            tensors = [
                # without .data each Parameter would be compiled for itself
                [t.view(view) if flat and w else t.data for t, w in zip(each, whole, strict=True)]
                for _, each in some
            ]
            key = (len(some), whole, view[1:], dtypes, precision)
            if not _compiled(update, constants, names, key, flat)(tensors, scalars):
                for i, _ in some:
                    rest.append(*batch.item(i))
    return rest


def together(alike: list[Any], flat: bool) -> Iterator[list[Any]]:
    """Tensors of a shape as they are updated: so many at once, and what is left one by one."""
    whole = len(alike) - len(alike) % TOGETHER if flat else 0
    yield from (alike[i : i + TOGETHER] for i in range(0, whole, TOGETHER))
    yield from ([x] for x in alike[whole:])


def rows(numel: int) -> tuple[int, int]:
    """A vector as rows of a fixed, small power of two: a row's sum is then kept in registers."""
    width = math.gcd(numel, WIDTH)
    return (numel // width, width) if width >= 64 else (1, numel)


def example_shapes(params: list[Tensor], flat: bool) -> list[torch.Size]:
    """Of tensors for which the same functions are compiled as for `params`, all of one kind.

    One by itself always: where some of four have no gradient, the others go one by one.
    """
    if params[0].device.type != "cpu":
        return [p.shape for p in params]
    large = [p for p in params if p.numel() >= SMALL]
    if not flat:
        return list(dict.fromkeys(p.shape for p in large))
    numbers: dict[torch.Size, set[int]] = {}  # by shape: how many are updated at once
    for whole, count in Counter(p.shape for p in large).items():
        number, width = rows(whole.numel())
        shape = torch.Size([width * (2 * SMALL // width + 1 if number > 1 else 1)])
        numbers.setdefault(shape, set()).update(len(x) for x in together([None] * count, flat))
    return [shape for shape, counts in numbers.items() for _ in range(sum(counts | {1}))]


def _lists(update: Update, batch: Batch, coefficients: Mapping[str, Any], constants: Any) -> bool:
    """Update the whole lists at once; False where no compiler works."""
    scalars = _tensors(coefficients, batch.params[0].dtype)
    names = (tuple(batch.state), tuple(coefficients))
    tensors = [[p.data, grad.data, *state.values()] for p, grad, state in batch.items()]
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
    """A compiled update, called with [p, grad, *state] of each parameter and the coefficients.

    What torch.compile does around a compiled graph at every call takes 50 us, longer than a small
    matrix takes. Where tensors are `flat`, and so their layout is known, it is left out: what the
    graph takes, and in which order, is learned from a call with copies, and from then on it is
    called with that.
    """

    def __init__(
        self,
        update: Callable[[list[list[Tensor]], list[Tensor]], None],
        options: dict[str, Any],
        flat: bool,
    ) -> None:
        self.flat = flat
        self.works: bool | None = None  # None: not called yet
        self.graph: Callable[..., Any] | None = None
        self.inputs: tuple[Any, ...] = ()  # of the graph, at the first call
        self.order: list[int | None] = []  # of what it is given in these; None: the rows
        backend: Any = functools.partial(self._compile, options.copy()) if flat else "inductor"
        if flat:
            options = {"guard_filter_fn": lambda guards: [False] * len(guards)}
        self.call = torch.compile(update, fullgraph=True, backend=backend, options=options)

    def __call__(self, tensors: list[list[Tensor]], scalars: list[Tensor]) -> bool:
        """Do the update; False where it cannot be compiled, and nothing was done."""
        if self.works is None:
            self.works = self._first(tensors, scalars)
        elif self.works and not self.flat:
            self.call(tensors, scalars)
        if self.works and self.flat:
            assert self.graph is not None
            given = [*chain.from_iterable(tensors), *scalars]
            rows = given[0].shape[0]
            self.graph(*[rows if i is None else given[i] for i in self.order])
        return self.works

    def _first(self, tensors: list[list[Tensor]], scalars: list[Tensor]) -> bool:
        """Compile: by doing the update, or if flat by one of copies, which are no views."""
        if self.flat:
            tensors = [[t.clone() for t in each] for each in tensors]
            scalars = [x.clone() for x in scalars]
        try:
            for t in chain.from_iterable(tensors) if self.flat or len(tensors) == 1 else []:
                torch._dynamo.maybe_mark_dynamic(t, 0)
            self.call(tensors, scalars)
            if self.flat:
                self._learn_order([*chain.from_iterable(tensors), *scalars])
        except Exception as error:  # no compiler, or one of a hundred ways it can fail
            reason = " ".join(f"{type(error).__name__}: {error}".split("\n")[:2])
            warnings.warn(
                "optimizer steps are not compiled and so take several times as long;"
                f" torch.compile needs g++ on a CPU and triton on a GPU ({reason})",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
        return True

    def _compile(
        self, patches: dict[str, Any], graph: torch.fx.GraphModule, examples: list[Any], **_: Any
    ) -> Callable[..., Any]:
        """The backend: torch.compile's own, which remembers what it was called with first."""
        compiled = torch._inductor.compile(graph, examples, options=patches)
        assert callable(compiled)

        def remember(*inputs: Any) -> Any:
            if self.works is None:
                self.graph, self.inputs = compiled, inputs
            return compiled(*inputs)

        return remember

    def _learn_order(self, given: list[Tensor]) -> None:
        """Where each input of the graph comes from; raises if one of them cannot be told."""
        inputs, self.inputs = self.inputs, ()
        rows = given[0].shape[0]
        for x in inputs:
            position = next((i for i, t in enumerate(given) if x is t), None)
            if position is None and not (isinstance(x, int) and x == rows):
                raise RuntimeError(f"the graph takes {x!r}, which it was not given")
            self.order.append(position)
        if rows > 1 and None not in self.order:
            raise RuntimeError(f"the graph is for {rows} rows only")


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
        # One after the other, so that a second pass finds in the cache what the first has left.
        for some in [[x] for x in tensors] if flat else [tensors]:
            params, grads, *state = (list(column) for column in zip(*some, strict=True))
            named = dict(zip(state_names, state, strict=True))
            update(params, grads, named, group, dict(zip(coefficient_names, scalars, strict=True)))

    # torch.compile keeps what it has compiled with the code object, a few for each at most; a
    # code object of its own lets any number of optimizers live in a process.
    code = call.__code__.replace(co_name=f"{update.__qualname__}_{hash(layout):x}")
    own = types.FunctionType(code, call.__globals__, closure=call.__closure__)
    # Whatever is needed in a second pass, after a norm, is computed again from its inputs: a
    # temporary of the size of the embedding costs more than the whole update.
    options: dict[str, Any] = {"realize_opcount_threshold": 1000, "realize_reads_threshold": 100}
    options["size_asserts"] = not flat  # rows of a fixed width leave nothing to check at a call
    return _Compiled(own, options, flat)
