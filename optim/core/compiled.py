"""An update, compiled: one function for each set of constants and each layout of the tensors.

A compiled update is called with `tensors` and `scalars`:

    tensors   one list [p, grad, *state] for each parameter
              flat: tensors as large as p are views (rows, width), of equal rows and width for all
              parameters; any other, such as a number for each tensor, has its own shape
              not flat: every tensor has its own shape
    scalars   the coefficients, in order, as tensors of shape ()
"""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable, Hashable, Mapping
from itertools import chain
from typing import Any

import torch

from optim.core.batch import Tensors, Update

Constants = tuple[tuple[str, Hashable], ...]
Function = Callable[[list[Tensors], Tensors], None]  # of tensors and scalars


def frozen(constants: Mapping[str, Any]) -> Constants:
    """`constants` as a key of a cache; a list, which TOML and JSON give, becomes a tuple."""
    return tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in constants.items())


@functools.cache
def compiled_update(
    update: Update,
    constants: Constants,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    layout: Hashable,
    flat: bool,
    stores: bool = False,
) -> CompiledUpdate:
    """The compiled form of `update`; equal arguments give the same object.

    Other constants or another layout give another function, so none is ever recompiled.

    Args:
        update: the function, of the form in optim.core.batch.
        constants: the hyperparameters without lr, frozen; they are built into the code.
        names: of the tensors of a parameter's state, and of the coefficients, in the order in
            which they are passed.
        layout: whatever else the code depends on: number, width, shapes and dtypes of tensors.
        flat: whether the tensors are passed as rows (see above).
        stores: whether it writes its temporaries to tensors that it was given.
    """
    h = dict(constants)
    state_names, coefficient_names = names

    def call(tensors: list[Tensors], scalars: Tensors) -> None:
        # One parameter after the other: a second pass over it then finds it in the cache.
        for some in [[x] for x in tensors] if flat else [tensors]:
            params, grads, *state = (list(column) for column in zip(*some, strict=True))
            named = dict(zip(state_names, state, strict=True))
            update(params, grads, named, h, dict(zip(coefficient_names, scalars, strict=True)))

    # torch.compile keeps its results with the code object, and only a few for each. A code object
    # of its own for each function lets any number of optimizers live in one process.
    code = call.__code__.replace(co_name=f"{update.__qualname__}_{hash((constants, layout)):x}")
    own = types.FunctionType(code, call.__globals__, closure=call.__closure__)
    # rows of a fixed width leave nothing to check at a call
    options: dict[str, Any] = {"size_asserts": not flat}
    # What a second pass (after a norm) needs is computed again from its inputs: a temporary as
    # large as the embedding costs more than the whole update. If it is stored anyway, the sums
    # read what is stored: only so are they in the loop that computes it.
    operations, reads = (20, 1) if stores else (1000, 100)
    options |= {"realize_opcount_threshold": operations, "realize_reads_threshold": reads}
    return CompiledUpdate(own, options, flat)


class CompiledUpdate:
    """A function of `tensors` and `scalars` (see above) that compiles itself at its first call.

    At every call torch.compile does work around its graph that takes 50 us: more than a small
    matrix takes. For `flat` tensors, whose layout is known, the work is skipped. The first call,
    on copies, shows which inputs the graph takes in which order; later calls go to the graph.
    """

    def __init__(self, function: Function, options: dict[str, Any], flat: bool) -> None:
        self.flat = flat
        self.works: bool | None = None  # None: not called yet
        self.graph: Callable[..., Any] | None = None
        self.inputs: tuple[Any, ...] = ()  # what the graph got at the first call
        self.order: list[int | None] = []  # where each of its inputs is found; None: rows
        backend: Any = functools.partial(self._compile, options.copy()) if flat else "inductor"
        if flat:
            options = {"guard_filter_fn": lambda guards: [False] * len(guards)}
        self.call = torch.compile(function, fullgraph=True, backend=backend, options=options)

    def __call__(self, tensors: list[Tensors], scalars: Tensors) -> bool:
        """Do the update in place; False if it cannot be compiled, and then nothing was done."""
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

    def _first(self, tensors: list[Tensors], scalars: Tensors) -> bool:
        """Compile by doing the update; if flat, by doing it on copies, which are not views."""
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
                "optimizer steps are not compiled and so take several times as long; install what"
                f" torch.compile needs: g++ on a CPU, triton and gcc on a GPU ({reason})",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
        return True

    def _compile(
        self, patches: dict[str, Any], graph: torch.fx.GraphModule, examples: list[Any], **_: Any
    ) -> Callable[..., Any]:
        """The backend: torch.compile's own, which also remembers the inputs of its first call."""
        compiled = torch._inductor.compile(graph, examples, options=patches)
        assert callable(compiled)

        def remember(*inputs: Any) -> Any:
            if self.works is None:
                self.graph, self.inputs = compiled, inputs
            return compiled(*inputs)

        return remember

    def _learn_order(self, given: Tensors) -> None:
        """Find each input of the graph among `given`, the tensors and scalars of the first call.

        Raises:
            RuntimeError: an input cannot be found, or the graph fixes the number of rows.
        """
        inputs, self.inputs = self.inputs, ()
        rows = given[0].shape[0]
        for x in inputs:
            position = next((i for i, t in enumerate(given) if x is t), None)
            if position is None and not (isinstance(x, int) and x == rows):
                raise RuntimeError(f"the graph takes {x!r}, which it was not given")
            self.order.append(position)
        if rows > 1 and None not in self.order:
            raise RuntimeError(f"the graph is for {rows} rows only")
