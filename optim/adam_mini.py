"""Adam-mini: AdamW with one second moment for each block of the Hessian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from optim.core import adamw
from optim.core.base import UpdateRule
from optim.core.batch import Params, State, Tensors, Values
from optim.core.hyperparameters import Betas, Count, NonNegative
from optim.core.norms import row_sums
from optim.core.width import ELEMENTWISE


class AdamMini(UpdateRule):
    """AdamW with one second moment, and so one step size, for each dense block of the Hessian.

    Source: Zhang et al., "Adam-mini: Use Fewer Learning Rates To Gain More", arXiv:2406.16793; the
    authors' package adam-mini 1.1.1.

        p <- p * (1 - lr * weight_decay)
        m <- beta1 * m + (1 - beta1) * g
        v_b <- beta2 * v_b + (1 - beta2) * mean(g^2 over block b)
        p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v_b / (1 - beta2^t)) + eps)     (p in block b)

    Blocks, by the parameter's name and shape (rows are output neurons or tokens):
        *.c_attn.weight      a head of Q, a head of K (n_head each); a row of V, or V whole
        other matrices       a row: MLP, projections, embeddings
        ln_*, norm           the whole vector
        other vectors        an element: Adam, as for the biases in the package
    Differs: the package recognises tensors by substrings that this model's names do not have: it
    would give one v to the fused Q, K, V, one to the attention's projection and one to the
    positions. It exempts tensors from decay by name; here the groups decide, as for every
    optimizer.
    Tuning: AdamW's hyperparameters. n_head must be the model's. One that does not divide Q's rows
    is an error, but 6 in place of 12 goes unnoticed. Below about 10,000 to 20,000 steps the authors
    advise one v for the whole of V: value_blocks "whole".
    State: exp_avg and a number for each block: 4 bytes per parameter (4.006 for GPT-2 124M).
    """

    buffers = adamw.BUFFERS
    width_powers = ELEMENTWISE

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.0,
        n_head: Count = 1,
        value_blocks: Literal["row", "whole"] = "row",
    ) -> None:
        super().__init__(params, locals())

    def kind(self, p: Tensor, name: str, group: Mapping[str, Any]) -> str:
        """How `p` is partitioned: "qkv", "rows", "whole" or "elements".

        Raises:
            ValueError: n_head does not divide Q's rows.
        """
        module = name.rpartition(".")[0].rpartition(".")[2] or name
        if p.ndim < 2:
            return "whole" if module.startswith("ln") or "norm" in module else "elements"
        if module != "c_attn":
            return "rows"
        if len(p) % (3 * group["n_head"]):
            raise ValueError(
                f"'{name}' has {len(p)} rows, which are not Q, K and V of n_head ="
                f" {group['n_head']} heads each; give the model's n_head"
            )
        return "qkv"

    def flat(self, kind: str) -> bool:
        """Blocks are rows or more, except for single elements."""
        return kind == "elements"

    def init_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """The momentum, and v: as `p` for elements, otherwise (blocks, 1)."""
        if h["kind"] == "elements":
            return super().init_state(p, h)
        rows = p.new_zeros(len(p) if p.ndim > 1 else 1, 1)
        blocks = torch.zeros_like(_block_means(rows, h))
        return {"exp_avg": torch.zeros_like(p), "exp_avg_sq": blocks}

    def coefficients(self, h: Values, step: int) -> Values:
        return adamw.coefficients(h, step)

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, h: Values, c: Values) -> None:
        if h["kind"] == "elements":
            adamw.update(params, grads, state, h, c)
            return
        (beta1, beta2), m, v = h["betas"], state["exp_avg"], state["exp_avg_sq"]
        torch._foreach_mul_(params, c["decay"])
        torch._foreach_lerp_(m, grads, 1 - beta1)
        rows = [_row_means(g) for g in grads]
        torch._foreach_lerp_(v, [_block_means(row, h) for row in rows], 1 - beta2)
        denominator = torch._foreach_sqrt(v)
        torch._foreach_mul_(denominator, c["root_scale"])
        torch._foreach_add_(denominator, h["eps"])
        spread = [
            by_row(d, p, h).view(-1, *[1] * (p.ndim - 1))
            for d, p in zip(denominator, params, strict=True)
        ]
        adamw.subtract_ratio(params, m, spread, c["step_size"])


def _row_means(g: Tensor) -> Tensor:
    """(rows, ...) gradient, or a vector -> (rows, 1) means of its square, in the dtype of `g`."""
    g = g.flatten(1) if g.ndim > 1 else g.view(1, -1)
    return (row_sums(g * g) / g.shape[1]).to(g.dtype).view(-1, 1)


def _block_means(rows: Tensor, h: Values) -> Tensor:
    """(rows, 1) means of rows of equal length -> (blocks, 1) means of blocks."""
    if h["kind"] != "qkv":
        return rows
    heads, width = 2 * h["n_head"], len(rows) // 3
    q_and_k, v = rows[: 2 * width].view(heads, -1).mean(-1, keepdim=True), rows[2 * width :]
    return torch.cat([q_and_k, v.mean(0, keepdim=True) if h["value_blocks"] == "whole" else v])


def by_row(blocks: Tensor, p: Tensor, h: Values) -> Tensor:
    """(blocks, 1) -> (rows, 1): each row of `p` gets its block's number."""
    if h["kind"] != "qkv":
        return blocks
    heads, width = 2 * h["n_head"], len(p) // 3
    q_and_k = blocks[:heads].expand(heads, 2 * width // heads).reshape(-1, 1)
    return torch.cat([q_and_k, blocks[heads:].expand(width, 1)])
