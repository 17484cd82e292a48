"""Run an update of lists of tensors in one pass over memory, instead of one pass per operation.

Memory bounds an optimizer's step. AdamW has to move 28 bytes per parameter; its dozen
`torch._foreach_*` operations, run one after the other, move five times as much. torch.compile
fuses them. The update is one function either way; this file decides how it is called:

- On a CPU, large tensors go one after the other, as rows of a fixed width, through one kernel that
  is compiled for any number of rows, and a second one for TOGETHER tensors of equal shape. Memory
  idles between two kernels: Python has to prepare the next one, and the last kernel has evicted it
  from the cache. Measured for AdamW's update on GPT-2 124M with two cores: 3 to 10 seconds to
  compile, and a step as long as torch's fused one. All 148 tensors in one graph: 75 seconds, and a
  slower step. A kernel for each of the nine shapes: 4 to 16 seconds, and no faster. Small tensors
  go as one list through the plain operations: starting a kernel for each would take longer.
- On a GPU, the lists go in as they are and become a few kernels over many tensors: one kernel per
  tensor would be bound by its launch.

An update that needs a sum over a tensor before it can move it takes two passes (TwoPasses). On a
CPU, each is a kernel of its own, and what the second needs goes through one buffer, as large as the
largest tensor, that the optimizer keeps: a fresh one would cost more than the update.

Numbers that change between steps (lr, powers of the betas) are tensors of shape () on the CPU, so
that a kernel reads them when it runs; all other hyperparameters are constants in the kernel.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from optim.core.batch import Batch, State, Tensors, Update, Values
from optim.core.compiled import Constants, compiled_update, frozen

SMALL = 1 << 15  # elements; below it a tensor's operations cost their start, not their memory
TOGETHER = 4  # large tensors of equal shape in one kernel
WIDTH = 1 << 12  # elements; torch.compile sums up to so many without a data structure for it


Scratch = dict[torch.dtype, Tensor]  # memory that an optimizer keeps for the second pass


class TwoPasses:
    """An update of each tensor that depends on a sum over it; an update itself.

    `measure(params, grads, state, h, c)` updates the state and returns, as parallel lists, the
    updates and a number of shape () for each. `move(params, updates, numbers, h, c)` moves the
    parameters; it may write to the updates. Between the two the updates have the given dtype, or
    that of the parameter.
    """

    def __init__(
        self,
        measure: Callable[[Tensors, Tensors, State, Values, Values], tuple[Tensors, Tensors]],
        move: Callable[[Tensors, Tensors, Tensors, Values, Values], None],
        dtype: torch.dtype | None = None,
    ) -> None:
        # as the functions themselves, since torch.compile cannot call a staticmethod
        self.measure, self.move = inspect.unwrap(measure), inspect.unwrap(move)
        self.dtype = dtype
        self.__qualname__ = measure.__qualname__

    def __call__(self, params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        """Both passes."""
        self.move(params, *self.measure(params, grads, state, h, c), h, c)

    def first(self, params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        """Measure, and write the results to "update" and "number" of `state`."""
        results = self.measure(params, grads, state, h, c)
        for name, values in zip(("update", "number"), results, strict=True):
            torch._foreach_copy_(state[name], values)

    def second(self, params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        """Move by what `first` has written."""
        self.move(params, state["update"], state["number"], h, c)

    def room(self, p: Tensor, scratch: Scratch) -> tuple[Tensor, Tensor]:
        """Memory for the update and the number of `p`; it stays what it is until the next call."""
        dtype = self.dtype or p.dtype
        if dtype not in scratch or scratch[dtype].numel() < p.numel():
            scratch[dtype] = torch.empty(p.numel(), dtype=dtype)
        number = torch.empty((), dtype=torch.promote_types(p.dtype, torch.float32))
        return scratch[dtype][: p.numel()].view(p.shape), number


def run(
    update: Update, batch: Batch, c: Values, *, flat: bool, compiled: bool, scratch: Scratch
) -> None:
    """Call `update` on `batch`: as it is, or compiled.

    Args:
        update: works in place, on tensors of any shape if `flat`. It gets the coefficients as
            numbers if it is not compiled, and as tensors of shape () if it is.
        batch: its gradients are not written to.
        c: coefficients for torch._foreach_mul, torch._foreach_div or plain arithmetic.
        flat: whether a tensor's shape does not matter, so that it may be passed as rows.
        compiled: whether to compile where a compiler works.
        scratch: memory for TwoPasses, by dtype; made here where it is needed.
    """
    plain = batch
    if compiled:
        constants = frozen(batch.constants())
        if batch.params[0].device.type == "cpu":
            plain = _one_by_one(update, batch, c, constants, flat, scratch)
        elif run_lists(update, batch, c, constants):
            return
    if plain.params:
        update(plain.params, plain.grads, plain.state, plain.constants(), c)


def _one_by_one(
    update: Update, batch: Batch, c: Values, constants: Constants, flat: bool, scratch: Scratch
) -> Batch:
    """Update the large tensors; returns a batch of the others."""
    rest = Batch(batch.h, batch.step, batch.index)
    alike: dict[Any, list[Tensors]] = {}
    columns = [batch.params, batch.grads, *batch.state.values()]
    for i, item in enumerate(zip(*columns, strict=True)):
        if item[0].numel() < SMALL or not all(map(Tensor.is_contiguous, item)):
            rest.append(*batch.item(i))
        else:
            key = (item[0].shape, *[(t.numel(), t.dtype) for t in item])
            alike.setdefault(key, []).append(list(item))
    scalars = _scalars(c, batch.params[0].dtype) if alike else []
    for found in alike.values():
        if isinstance(update, TwoPasses):
            names = (*batch.state, "update", "number")
            for tensors in found:
                one = [[*tensors, *update.room(tensors[0], scratch)]]
                _compiled(update.first, constants, names, one, c, scalars, flat, stores=True)
                _compiled(update.second, constants, names, one, c, scalars, flat)
        else:
            for some in _together(found, flat):
                _compiled(update, constants, tuple(batch.state), some, c, scalars, flat)
    return rest


def _compiled(
    update: Update,
    constants: Constants,
    names: tuple[str, ...],
    tensors: list[Tensors],
    c: Values,
    scalars: Tensors,
    flat: bool,
    stores: bool = False,
) -> None:
    """Update [p, grad, *state] of equal shapes in one kernel; plain if there is no compiler."""
    p = tensors[0][0]
    whole = tuple(t.numel() == p.numel() for t in tensors[0])
    view = _rows(p.numel()) if flat else p.shape
    dtypes, precision = (tuple(t.dtype for t in some) for some in (tensors[0], scalars))
    layout = (len(tensors), whole, view[1:], dtypes, precision)
    given = [
        # without .data each Parameter would be compiled for itself
        [t.view(view) if flat and w else t.data for t, w in zip(each, whole, strict=True)]
        for each in tensors
    ]
    function = compiled_update(update, constants, (names, tuple(c)), layout, flat, stores)
    if not function(given, scalars):
        params, grads, *state = (list(column) for column in zip(*tensors, strict=True))
        update(params, grads, dict(zip(names, state, strict=True)), dict(constants), c)


def _together(alike: list[Any], flat: bool) -> Iterator[list[Any]]:
    """Split tensors of equal shape into groups that share a kernel: TOGETHER at once, then ones."""
    whole = len(alike) - len(alike) % TOGETHER if flat else 0
    yield from (alike[i : i + TOGETHER] for i in range(0, whole, TOGETHER))
    yield from ([x] for x in alike[whole:])


def _rows(numel: int) -> tuple[int, int]:
    """(rows, width) of a vector; with a small power of two as width, registers hold a row's sum."""
    width = math.gcd(numel, WIDTH)
    return (numel // width, width) if width >= 64 else (1, numel)


def example_shapes(params: Tensors, flat: bool) -> list[torch.Size]:
    """Shapes of tensors for which the same functions are compiled as for `params`, of one kind.

    A single tensor is always among them: if some of four have no gradient, the others go one by
    one.
    """
    if params[0].device.type != "cpu":
        return [p.shape for p in params]
    large = [p for p in params if p.numel() >= SMALL]
    if not flat:
        return list(dict.fromkeys(p.shape for p in large))
    numbers: dict[torch.Size, set[int]] = {}  # by shape: how many share a kernel
    for whole, count in Counter(p.shape for p in large).items():
        number, width = _rows(whole.numel())
        shape = torch.Size([width * (2 * SMALL // width + 1 if number > 1 else 1)])
        numbers.setdefault(shape, set()).update(len(x) for x in _together([None] * count, flat))
    return [shape for shape, counts in numbers.items() for _ in range(sum(counts | {1}))]


def run_lists(update: Update, batch: Batch, c: Values, constants: Constants) -> bool:
    """Update the whole lists at once, as on a GPU; False if no compiler works."""
    scalars = _scalars(c, batch.params[0].dtype)
    names = (tuple(batch.state), tuple(c))
    tensors = [[p.data, grad.data, *state.values()] for p, grad, state in batch.items()]
    layout = tuple((p.shape, p.dtype, p.device, g.dtype) for p, g, *_ in tensors)
    return compiled_update(update, constants, names, layout, False)(tensors, scalars)


def _scalars(c: Values, dtype: torch.dtype) -> Tensors:
    """The coefficients as tensors, in the precision of the arithmetic: float32 for 16 bits."""
    precision = torch.promote_types(dtype, torch.float32)
    return [x if isinstance(x, Tensor) else torch.tensor(x, dtype=precision) for x in c.values()]
