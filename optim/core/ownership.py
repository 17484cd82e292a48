"""ZeRO stage 1 by ownership: ranks that train one model share the work of its optimizer.

Every rank has the whole model and, by DDP, all gradients. Each parameter has an owner, the only
rank that keeps its state and computes its update. Around a step an owner hides the gradients of all
other parameters, which every torch optimizer then skips; afterwards the owners broadcast what they
have updated. So a rule sees whole tensors, and its numbers are those of a single process, bit for
bit. A checkpoint holds torch's state_dict and does not depend on the number of ranks.

Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models",
arXiv:1910.02054, stage 1, with whole parameters as the parts. torch's own ZeroRedundancyOptimizer
cannot load its state on another number of ranks (github.com/pytorch/pytorch/issues/65650), and
FSDP2 gives a rule rows in place of matrices (github.com/pytorch/pytorch/issues/126670).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from configs.validation import ConfigError, first_line
from optim.core.around import Around
from optim.core.base import Optimizer

LARGE = 1 << 18  # elements; smaller tensors of one owner are sent as one
PAYS_FROM = 4.0  # times the cost of an element-wise update


def shared(
    optimizer: Optimizer, setting: Literal["auto"] | bool, rank: int, ranks: int
) -> Optimizer:
    """`optimizer` with its work shared by `ranks`, of which this is `rank`; or as it is.

    "auto" shares it if its updates cost at least PAYS_FROM times as much as element-wise ones, as
    those of matrix methods do. A cheaper update takes less time than to send the parameters.
    """
    if ranks == 1 or setting is False:
        return optimizer
    elements = sum(p.numel() for p in _parameters(optimizer))
    if setting == "auto" and sum(optimizer.update_costs()) < PAYS_FROM * elements:
        return optimizer
    return Owned(optimizer, rank, ranks)


def owners(costs: Sequence[float], ranks: int) -> list[int]:
    """A rank for each cost: the most expensive first, each to the rank with the least so far."""
    loads, chosen = [0.0] * ranks, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        chosen[i] = loads.index(min(loads))
        loads[chosen[i]] += costs[i]
    return chosen


class Owned(Around):
    """`inner`, of whose parameters this rank updates those that it owns.

    Every rank of the default process group has one, over equal parameters with equal gradients, and
    makes the same calls. Only `state_dict` is local: the state that this rank keeps;
    `whole_state_dict` collects all of it. `load_state_dict` takes the whole.
    """

    def __init__(self, inner: Optimizer, rank: int, ranks: int) -> None:
        super().__init__(inner)
        self.rank, self.ranks = rank, ranks
        self.owners = owners(inner.update_costs(), ranks)
        self._checks = inner.check_gradients
        inner.check_gradients = False  # this rank may see a gradient that others do not
        everyone = zip(_parameters(inner), self.owners, strict=True)
        self.row.elsewhere = frozenset(p for p, owner in everyone if owner != rank)
        for p in self.row.elsewhere:
            self.row.state.pop(p, None)  # some classes make state when they are built

    @property
    def check_gradients(self) -> bool:
        """Whether a step looks at all gradients first, on every rank."""
        return self._checks

    @check_gradients.setter
    def check_gradients(self, value: bool) -> None:
        self._checks = value

    # ---------------------------------------------------------------- the step

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; returns the closure's loss.

        Raises:
            RuntimeError: a gradient is sparse, or not finite; on all ranks, and nothing has
                changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moved = [p.grad is not None for p in _parameters(self)]
        with self._own_gradients():
            self.inner.step()
        self._send(moved)
        return loss

    @torch.no_grad()
    def update_curvature(self, tokens: int) -> None:
        """As the row's, for own parameters; checks all gradients as a step does."""
        with self._own_gradients():
            self.inner.update_curvature(tokens)

    @contextmanager
    def _own_gradients(self) -> Iterator[None]:
        """Check all gradients, then hide those of others' parameters."""
        grads = [(p, p.grad) for p in _parameters(self) if p.grad is not None]
        if any(grad.layout != torch.strided for _, grad in grads):
            raise RuntimeError(
                "ranks cannot share the update of a sparse gradient; give sparse=False to the"
                " embedding, or set train.shard_optimizer = false"
            )
        if self.check_gradients:
            self.refuse_non_finite()
        for p, _ in grads:
            if p in self.row.elsewhere:
                p.grad = None
        self.row.exchange = self._exchange if grads else None
        try:
            yield
        finally:
            self.row.exchange = None
            for p, grad in grads:
                p.grad = grad

    def _exchange(self, x: Tensor) -> Tensor:
        every = x.new_zeros(self.ranks, *x.shape)
        every[self.rank] = x
        dist.all_reduce(every)
        return every

    def _send(self, moved: Sequence[bool] | None = None) -> None:
        """Give all ranks the parameters as their owners have them; only those `moved`, if given.

        All broadcasts are under way at once. Large parameters are sent from where they lie, the
        small ones of an owner as one.
        """
        parts: dict[tuple[int, torch.dtype], list[Tensor]] = {}
        work = []
        for i, p in enumerate(_parameters(self)):
            owner, p = self.owners[i], p.detach()
            if moved is not None and not moved[i]:
                continue
            if p.numel() >= LARGE and p.is_contiguous():
                work.append(dist.broadcast(p, owner, async_op=True))
            else:
                parts.setdefault((owner, p.dtype), []).append(p)
        received = []
        for (owner, _), tensors in parts.items():
            flat = _flatten_dense_tensors(tensors)
            work.append(dist.broadcast(flat, owner, async_op=True))
            if owner != self.rank:
                received.append((tensors, flat))
        for each in work:
            each.wait()
        for tensors, flat in received:
            torch._foreach_copy_(tensors, list(_unflatten_dense_tensors(flat, tensors)))

    # ---------------------------------------------------------------- the other hooks

    @torch.no_grad()
    def train_mode(self) -> None:
        """The owners put the weights of training in place, and send them."""
        self.inner.train_mode()
        self._send_if_swapped()

    @torch.no_grad()
    def eval_mode(self) -> None:
        """The owners put the weights to evaluate in place, and send them."""
        self.inner.eval_mode()
        self._send_if_swapped()

    @torch.no_grad()
    def average_mode(self, name: str) -> None:
        """The owners put the average in place, and send it."""
        self.inner.average_mode(name)
        self._send_if_swapped()

    def _send_if_swapped(self) -> None:
        if self.averages_weights:
            self._send()

    def diagnostics(self) -> dict[str, float | Tensor]:
        """Of all parameters; all ranks call it."""
        self.row.exchange = self._exchange
        try:
            return self.inner.diagnostics()
        finally:
            self.row.exchange = None

    # ---------------------------------------------------------------- state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what this rank owns of a whole state_dict, saved on any number of ranks."""
        saved = [key for group in state_dict["param_groups"] for key in group["params"]]
        others = {key for i, key in enumerate(saved) if self.owners[i : i + 1] != [self.rank]}
        state = {k: v for k, v in state_dict["state"].items() if k not in others}
        self.inner.load_state_dict({**state_dict, "state": state})

    @torch.no_grad()
    def whole_state_dict(self) -> dict[str, Any]:
        """The state_dict of an optimizer that is not shared, on the CPU; empty except on rank 0.

        All ranks call it. One tensor is under way at a time.
        """
        local = self.inner.state_dict()
        keys = [key for group in local["param_groups"] for key in group["params"]]
        held = {key for key, owner in zip(keys, self.owners, strict=True) if owner == self.rank}
        tensors: dict[Any, list[Tensor]] = {key: [] for key in held}
        mine = {k: _split(v, tensors[k]) for k, v in local["state"].items() if k in held}
        grown = [  # of groups in which this rank owns a parameter
            {k: v for k, v in group.items() if isinstance(v, dict) and held & {*group["params"]}}
            for group in local["param_groups"]
        ]
        every: list[Any] | None = [None] * self.ranks if self.rank == 0 else None
        dist.gather_object((mine, grown), every)
        device = _parameters(self)[0].device
        if every is None:
            for key in sorted(mine, key=keys.index):
                for tensor in tensors[key]:
                    dist.send(tensor.to(device).contiguous(), 0)
            return {}
        state = {}
        for key, owner in zip(keys, self.owners, strict=True):
            if key in every[owner][0]:
                own = iter(tensors[key]) if owner == 0 else None
                state[key] = _joined(every[owner][0][key], owner, own, device)
        groups = []
        for group, *parts in zip(
            local["param_groups"], *(grown for _, grown in every), strict=True
        ):
            whole = {k: {} if isinstance(v, dict) else v for k, v in group.items()}
            for part in parts:
                for k, values in part.items():
                    whole[k].update(values)
            groups.append(whole)
        return {**local, "state": state, "param_groups": groups}


def rehearse(name: str, build: Callable[[list[Any]], Optimizer], groups: Sequence[Any]) -> None:
    """Try on small tensors whether ranks can share an optimizer from elsewhere.

    Every second parameter is trained, with and without gradients for the others. Its numbers have
    to be the same bits, and nothing may be kept for a parameter without a gradient.

    Raises:
        ConfigError: they cannot; one line that says why.
    """
    try:
        with torch.device("cpu"):
            problem = _coupling(build, groups)
    except ConfigError:  # it cannot be built at all, which is said in its own words
        raise
    except Exception as error:  # others' code; it may need a closure, or every gradient
        problem = f"it fails without some of the gradients ({first_line(error)})"
    if problem:
        raise ConfigError(
            f"train.shard_optimizer = true: ranks cannot share the work of '{name}', since"
            f" {problem}; set it to false, and every rank does all of the work"
        )


def _coupling(build: Callable[[list[Any]], Optimizer], groups: Sequence[Any]) -> str | None:
    ends = []
    for every in (1, 2):
        generator = torch.Generator().manual_seed(1)
        optimizer = build([_small(group, generator) for group in groups])
        params, state = _parameters(optimizer), _row(optimizer).state
        own, others = params[::every], [p for i, p in enumerate(params) if i % every]
        for p in others:
            state.pop(p, None)
        before = [p.detach().clone() for p in others]
        for _ in range(3):
            for i, p in enumerate(params):
                grad = torch.randn(p.shape, generator=generator)
                p.grad = grad if i % every == 0 else None
            optimizer.step()
        if {*_row(optimizer).state} - {*own}:
            return "it keeps state for other things than parameters with a gradient"
        if not all(map(torch.equal, others, before)):
            return "it moves a parameter without a gradient"
        ends.append(params[::2])
    if not all(map(torch.equal, *ends)):
        return "the update of a parameter depends on other parameters"
    return None


def _small(group: Any, generator: torch.Generator) -> dict[str, Any]:
    """A group with small tensors in place of its first two parameters."""
    group = group if isinstance(group, dict) else {"params": [group]}
    own = {k: v[:2] for k, v in group.items() if k in ("names", "param_names")}
    shapes = [[min(n, 48) for n in p.shape] for p in list(group["params"])[:2]]
    params = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
    return {**group, **own, "params": params}


@dataclass(frozen=True)
class _Sent:
    """Stands for a tensor that is sent by itself."""

    shape: torch.Size
    dtype: torch.dtype


def _split(value: Any, large: list[Tensor]) -> Any:
    """`value` with a `_Sent` for each large tensor, which goes to `large`."""
    if isinstance(value, Tensor):
        if value.numel() < 1024:
            return value.cpu()
        large.append(value)
        return _Sent(value.shape, value.dtype)
    if isinstance(value, dict):
        return {k: _split(v, large) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_split(v, large) for v in value])
    return value


def _joined(value: Any, owner: int, own: Iterator[Tensor] | None, device: torch.device) -> Any:
    """The inverse of `_split`: tensors come from `own`, or from the rank `owner`."""
    if isinstance(value, _Sent):
        if own is not None:
            return next(own).cpu()
        tensor = torch.empty(value.shape, dtype=value.dtype, device=device)
        dist.recv(tensor, owner)
        return tensor.cpu()
    if isinstance(value, dict):
        return {k: _joined(v, owner, own, device) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_joined(v, owner, own, device) for v in value])
    return value


def _row(optimizer: Optimizer) -> Optimizer:
    return optimizer.row if isinstance(optimizer, Around) else optimizer


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
