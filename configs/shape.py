"""The shape of GPT-2, and its parametrization: what follows the width, so that rates need not.

muP (Yang et al., "Tensor Programs V", arXiv:2203.03466, table 8, which is for a head tied to the
embedding) keeps the size of every activation, and of its change in an update, while a model grows
wider. For a model of n / base = r times the base width:

    hidden matrices   initial standard deviation / sqrt(r); lr by the optimizer's rule
    embeddings        as in the standard parametrization; lr by the optimizer's rule
    readout           logits / r, since its matrix is the embedding and keeps that one's size
    attention         q . k times 8 / d for heads of size d: 1 / sqrt(d) for GPT-2's heads of 64

So at the base width, with heads of 64, both are the same model to the bit. Rates by role are in
optim/width.py.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from configs.validation import Strict

_STD = 0.02  # of GPT-2's initial weights
_HEAD = 64  # size of GPT-2's heads


def _standard_is_none(value: str | None) -> str | None:
    return None if value == "standard" else value  # one spelling, so that a run has one identity


class Model(Strict):
    """Shape of GPT-2."""

    vocab_size: int = Field(gt=0, description="tokens in the vocabulary (50257 for GPT-2)")
    block_size: int = Field(gt=0, description="context length, tokens")
    n_layer: int = Field(gt=0, description="transformer blocks")
    n_head: int = Field(gt=0, description="attention heads")
    n_embd: int = Field(gt=0, description="width; divisible by n_head")
    parametrization: Annotated[
        Literal["standard", "mup"] | None, AfterValidator(_standard_is_none)
    ] = Field(
        default=None,
        description="mup: initial weights, rates, attention and logits follow the width, so that"
        " optimizer.lr can stay as it is; default: standard",
    )
    base_n_embd: int | None = Field(
        default=None, gt=0, description="with mup: the width at which rates are those of standard"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Model:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd = {self.n_embd} must be divisible by n_head = {self.n_head}")
        return self

    @model_validator(mode="after")
    def _mup_has_a_base(self) -> Model:
        if self.parametrization and self.base_n_embd is None:
            raise ValueError(
                "parametrization = mup needs base_n_embd: the width at which rates are those of the"
                " standard parametrization, such as that of the model they were tuned on"
            )
        if self.base_n_embd and not self.parametrization:
            raise ValueError(
                f"base_n_embd = {self.base_n_embd} is for parametrization = mup; give that too, or"
                " leave base_n_embd out"
            )
        return self

    @property
    def width_ratio(self) -> float:
        """Width over that of the base; 1 in the standard parametrization."""
        return self.n_embd / self.base_n_embd if self.base_n_embd else 1.0

    @property
    def readout(self) -> float:
        """Factor on the logits."""
        return 1 / self.width_ratio

    @property
    def attention_scale(self) -> float | None:
        """Factor on q . k; None: 1 / sqrt(size of a head), as torch has it."""
        return math.sqrt(_HEAD) * self.n_head / self.n_embd if self.parametrization else None

    def initial_std(self, name: str) -> float:
        """Standard deviation of the initial weights of the matrix `name` of train_gpt2.GPT."""
        # Every block adds two projections to the residual stream; this keeps its variance.
        std = _STD / math.sqrt(2 * self.n_layer) if name.endswith("c_proj.weight") else _STD
        return std / math.sqrt(self.width_ratio) if name.startswith("h.") else std
