"""What the methods for matrices share: which parameters are theirs, and AdamW for the others.

A method's own mathematics is for the matrices inside the network, whose rows and columns are
neurons: parameters with two dimensions in a group of role "hidden", or in a group without a role.
Embeddings, an untied head and vectors take AdamW's step, with the rate, betas and decay of their
role (optim.core.roles).

A fused "c_attn" is three matrices, Q, K and V, with split_qkv: each has its own state, stacked in
the parameter's state along a new first dimension, and methods are given single matrices only.

Random matrices depend on a seed, an epoch and a shape, never on torch's global generator. So they
are equal on all ranks, after a resume and for any order of the parameters, and need no state.
Matrices of equal shape share them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from optim.core import adamw
from optim.core.base import UpdateRule
from optim.core.batch import Batch, Params, Values
from optim.core.orthogonal import iterations
from optim.core.products import matmul_precision

MatmulDtype = Literal["float32", "tf32"]
# A processor multiplies matrices with so many FLOPs in the time in which it moves the 28 bytes of
# an element-wise update: 400 for 200 GFLOP/s beside 14 GB/s, more on a GPU.
FLOPS_PER_ELEMENT = 400
_OF_ADAMW = ("kind", "lr", "betas", "eps", "weight_decay")


class MatrixRule(UpdateRule):
    """An optimizer of hidden matrices, with AdamW inside for all other parameters.

    A subclass writes `__init__`, `matrix_step` and, as `buffers` or `matrix_state`, its state. Its
    hyperparameters include "weight_decay", "split_qkv", "betas" and "eps" for AdamW, and
    "matmul_dtype" if its float32 products may be in TF32 on a GPU; those that matrices do not use
    are in `not_of_matrices`.

    Raises:
        ValueError: none of the parameters is a hidden matrix.
    """

    not_of_matrices: tuple[str, ...] = ()

    def __init__(self, params: Params, values: Values) -> None:
        super().__init__(params, values)
        if all(h["kind"] == "adamw" for _, _, _, h in self._entries()):
            raise ValueError(
                f"{type(self).__name__} has no matrix to act on: none of the parameters has two"
                " dimensions and the role 'hidden' (or no role); use adamw for these"
            )
        warn_without_role(self)

    def matrix_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """Tensors to keep for the single matrix `p`; by default zeros, named by `buffers`."""
        return super().init_state(p, h)

    def matrix_step(self, batch: Batch, c: Values) -> None:
        """One step of a batch of matrices, in place, never compiled; `c` has "lr" and "decay".

        Parameters, gradients and state are those of single matrices: Q, K and V come apart.
        """
        raise NotImplementedError

    @classmethod
    def acts_on(cls, role: str, key: str) -> bool:
        """AdamW uses four hyperparameters; matrices use all that are not for AdamW alone."""
        if role == "hidden":
            return key not in (*cls.whole, *cls.not_of_matrices)
        return key in _OF_ADAMW and key not in cls.whole

    def update_cost(self, p: Tensor, h: Values) -> float:
        """That of the method for a matrix, and its elements for AdamW."""
        return float(p.numel()) if h["kind"] == "adamw" else matrix_cost(p, h)

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """Either "adamw", "matrix", or with split_qkv also "qkv": three matrices in one."""
        return split_kind(p, name, group) if is_hidden(p, group) else "adamw"

    def flat(self, kind: str) -> bool:
        """AdamW does not depend on shapes."""
        return kind == "adamw"

    def compiles(self, kind: str) -> bool:
        """Only AdamW: decompositions leave nothing to compile, and their first step is slowest."""
        return kind == "adamw"

    def init_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """AdamW's moments, or the method's own state."""
        if h["kind"] == "adamw":
            return {name: torch.zeros_like(p) for name in adamw.BUFFERS}
        return stacked_state(self.matrix_state, p, h)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but checks the state of matrices (see `check_matrix_state`)."""
        super().load_state_dict(state_dict)
        check_matrix_state(self)

    update = staticmethod(adamw.update)

    def advance(self, batches: list[Batch]) -> None:
        """AdamW's step, or the method's own."""
        for batch in batches:
            if batch.h["kind"] == "adamw":  # only what it reads: constants of the compiled form
                own = replace(batch, h={key: batch.h[key] for key in _OF_ADAMW})
                self.run(self.update, own, adamw.coefficients(batch.h, batch.step))
        for batch in single_matrices(b for b in batches if b.h["kind"] != "adamw"):
            dtype, device = batch.h.get("matmul_dtype", "float32"), batch.params[0].device.type
            with float32_products(dtype, device):
                self.matrix_step(batch, self.coefficients(batch.h, batch.step))


@contextmanager
def float32_products(dtype: str, device: str) -> Iterator[None]:
    """Take products of float32 matrices in TF32 if `dtype` is "tf32", whatever torch is set to.

    The precision of a method is its own affair: it does not change with the dtype of the model,
    which decides how the trainer sets torch. TF32 rounds factors to 11 bits, on GPUs only.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(matmul_precision(device, dtype == "tf32"))
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def is_hidden(p: Tensor, group: Mapping[str, Any]) -> bool:
    """Whether `p` is a matrix between neurons: its group has the role "hidden", or no role."""
    return p.ndim == 2 and group.get("role", "hidden") == "hidden"


def warn_without_role(optimizer: UpdateRule) -> None:
    """Say that matrices in groups without a role are taken for hidden ones."""
    groups = [group for group in optimizer.param_groups if "role" not in group]
    matrices = sum(p.ndim == 2 for group in groups for p in group["params"])
    if matrices:
        warnings.warn(
            f"{type(optimizer).__name__} takes {matrices} matrices for hidden ones, because their"
            " parameter groups have no 'role'; an embedding or a head among them needs a group of"
            " its own, with role 'embedding' or 'head' (docs/optimizers.md, In your own loop)",
            stacklevel=2,
        )


def split_kind(p: Tensor, name: str, group: Mapping[str, Any]) -> str:
    """The kind of a hidden matrix: "qkv" if it is to be split in three, otherwise "matrix".

    Raises:
        ValueError: it is to be split, but its rows are not a multiple of three.
    """
    module = name.removesuffix(".weight").rpartition(".")[2]
    if not group.get("split_qkv") or module != "c_attn":
        return "matrix"
    if len(p) % 3:
        raise ValueError(
            f"'{name}' has {len(p)} rows, which are not Q, K and V; use split_qkv = false"
        )
    return "qkv"


def stacked_state(
    make: Callable[[Tensor, Values], dict[str, Tensor]], p: Tensor, h: Values
) -> dict[str, Tensor]:
    """`make(p, h)`; of kind "qkv" what it gives for Q, K and V, stacked: (3, ...) each."""
    if h["kind"] != "qkv":
        return make(p, h)
    parts = [make(part, h) for part in p.chunk(3)]
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def check_matrix_state(optimizer: UpdateRule) -> None:
    """Compare loaded state with the shapes of `init_state`; called after a load.

    State of Q, K and V whose rows lie one below the other, as earlier versions kept it, becomes a
    stack of three.

    Raises:
        ValueError: a tensor has another shape; one line.
    """
    for p, name, _, h in optimizer._entries():
        state = optimizer.state.get(p)
        if not state or h["kind"] not in ("matrix", "qkv"):
            continue
        made = optimizer.init_state(torch.empty_like(p, device="meta"), h)
        for key, tensor in made.items():
            found, wanted = state[key].shape, tensor.shape
            below = (3 * wanted[1], *wanted[2:]) if tensor.ndim > 1 else None
            if h["kind"] == "qkv" and found == below:
                state[key] = state[key].view(wanted)
            elif found != wanted:
                raise ValueError(
                    f"{type(optimizer).__name__}: the saved {key} of '{name}' is"
                    f" {tuple(found)}, not {tuple(wanted)}: it is of other hyperparameters;"
                    f" optimizer.split_qkv = {str(h['kind'] != 'qkv').lower()} may be one of them"
                )


def single_matrices(batches: Iterable[Batch]) -> list[Batch]:
    """Batches of views of single matrices, all of kind "matrix": a "qkv" becomes three of them.

    Those of one group, step, dtype and device come together.
    """
    single: dict[tuple[Any, ...], Batch] = {}
    for batch in batches:
        parts = batch
        if batch.h["kind"] == "qkv":
            parts = replace(
                batch,
                params=[part for p in batch.params for part in p.chunk(3)],
                grads=[part for g in batch.grads for part in g.chunk(3)],
                state={k: [part for t in ts for part in t] for k, ts in batch.state.items()},
            )
        key = (batch.index, batch.step, batch.params[0].dtype, batch.params[0].device)
        if key not in single:
            single[key] = Batch({**batch.h, "kind": "matrix"}, batch.step, batch.index)
        joined = single[key]
        joined.params += parts.params
        joined.grads += parts.grads
        for name, tensors in parts.state.items():
            joined.state.setdefault(name, []).extend(tensors)
    return list(single.values())


def bias_correction(betas: tuple[float, float], step: int) -> float:
    """sqrt(1 - beta2^t) / (1 - beta1^t), the factor of m / (sqrt(v) + eps)."""
    return math.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)


def eigen(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors; in float64 if float32 does not converge.

    Raises:
        RuntimeError: the matrix is not finite.
    """
    try:
        values, vectors = torch.linalg.eigh(symmetric)
    except torch.linalg.LinAlgError:
        if not symmetric.isfinite().all():
            raise RuntimeError(
                "a second moment has no eigenvectors: a gradient of this step or an earlier one is"
                " not finite"
            ) from None
        values, vectors = (t.to(symmetric.dtype) for t in torch.linalg.eigh(symmetric.double()))
    return values, vectors


def add_product_(p: Tensor, a: Tensor, b: Tensor, *, left: float, factor: float) -> None:
    """p <- left * p + factor * a b, of stacks, in one pass over `p` if all have one dtype."""
    if p.dtype == a.dtype:
        p.baddbmm_(a, b, beta=left, alpha=factor)
    else:
        p.mul_(left).add_((factor * (a @ b)).to(p.dtype))


def matrix_cost(p: Tensor, h: Values) -> float:
    """What an update of the matrix `p` costs, in updates of one element, to order of magnitude.

    By its products: those of the polynomials that make it orthogonal, of a projection if there is a
    "rank", and else of a factor for each side, whose decompositions are rare.
    """
    parts = 3 if h["kind"] == "qkv" else 1
    m, n = len(p) // parts, p.shape[1]
    short, flops = min(m, n), 0
    orthogonal = {"ns_steps", "orthogonalisation"} & h.keys()
    if orthogonal:
        method = h.get("orthogonalisation", "newton_schulz")
        steps = len(iterations(method, h.get("ns_steps")))
        flops += steps * (4 * m * n * short + 2 * short**3)
    if "rank" in h or "rank_fraction" in h:
        rank = h["rank"] if "rank" in h else math.ceil(h["rank_fraction"] * short)
        flops += 8 * m * n * min(rank, short)
    elif not orthogonal or "precondition_frequency" in h:
        flops += 6 * m * n * (m + n) + 2 * (m**3 + n**3)
    return p.numel() + parts * flops / FLOPS_PER_ELEMENT


@lru_cache(maxsize=64)
def random_matrix(
    rows: int, columns: int, seed: int, epoch: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Standard normal numbers, the same for the same arguments; not to be written to."""
    generator = torch.Generator().manual_seed(mixed_seed(seed, epoch, rows, columns))
    return torch.randn(rows, columns, generator=generator, dtype=dtype).to(device)


def mixed_seed(seed: int, *parts: int) -> int:
    """One seed for each combination of the arguments."""
    for part in parts:
        seed = (seed * 6364136223846793005 + part + 1442695040888963407) % 2**63
    return seed
