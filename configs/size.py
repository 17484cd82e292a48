"""How large a run is, by counting: its parameters, its FLOPs and the memory that one rank needs.

Counted from the shape of the model, so it needs no model, no torch and no GPU. The formulas are
those of train_gpt2.py's GPT; tests compare them with what torch keeps for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from configs.batch import Batch
from configs.schema import Config
from configs.shape import Model

GIB = 2**30
WEIGHT_BYTES = 4  # of a parameter, and of its gradient: both are float32
FILL = 0.9  # of free memory; kernels' workspaces and gaps between tensors take the rest
SHORT = 256  # tokens; attention over so many, on a CPU, is made of plain products
UNIT = 64  # rows of the embedding are padded to a multiple of it


def parameters(shape: Model) -> int:
    """Parameters of the model, without padded rows: 124,439,808 for GPT-2 124M."""
    c, layers = shape.n_embd, shape.n_layer
    block = 12 * c * c + 13 * c
    return (shape.vocab_size + shape.block_size) * c + layers * block + 2 * c


def flops_per_token(shape: Model) -> int:
    """Forward and backward: 6 N + 12 layers x width x context; N without the positions."""
    n = parameters(shape) - shape.block_size * shape.n_embd
    return 6 * n + 12 * shape.n_layer * shape.n_embd * shape.block_size


@dataclass(frozen=True)
class Memory:
    """Bytes that one rank holds when the backward pass begins, which is when it holds most."""

    weights: float  # float32, and their bfloat16 copies where matrix products have that type
    gradients: float  # float32, and DDP's buckets where it keeps others than they hold
    optimizer: float  # its state
    activations: float  # what the blocks keep for the backward pass
    logits: float  # with their gradient, the final norm and the embedding

    @property
    def total(self) -> float:
        """All of it. Kernels, the allocator's gaps and the CUDA context come on top."""
        parts = self.weights, self.gradients, self.optimizer, self.activations, self.logits
        return sum(parts)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value / GIB:.3g}" for name, value in vars(self).items())
        return f"{self.total / GIB:.3g} GiB on each rank, by counting ({parts})"


def memory(
    shape: Model,
    micro_batch_size: int,
    state_bytes: float,
    *,
    bfloat16: bool,
    compiled: bool,
    checkpointing: bool = False,
    buckets: bool = False,
    plain_attention: bool = False,
) -> Memory:
    """What a rank needs for forward and backward passes of `micro_batch_size` sequences.

    Args:
        shape: of the model; the context is full.
        micro_batch_size: sequences in one pass.
        state_bytes: of the optimizer, per parameter: 8 for AdamW.
        bfloat16: whether matrix products have that type (autocast), instead of float32.
        compiled: whether torch.compile joins the loss into few kernels.
        checkpointing: whether each block keeps its input only, and runs again in the backward pass.
        buckets: whether DDP's buckets lie beside the gradients: they do where ranks exchange the
            sum of several micro-batches.
        plain_attention: whether no fused kernel computes it, so that all its weights are kept.
    """
    n, c, tokens = parameters(shape), shape.n_embd, micro_batch_size * shape.block_size
    vocabulary = -(-shape.vocab_size // UNIT) * UNIT
    width = 2 if bfloat16 else 4  # bytes of an input or output of a matrix product
    # Two norms keep their input in float32 and their output; q, k, v, the attention's output and
    # the two inputs of the MLP's second half (4 c each) are kept too; then statistics.
    block = c * (8 + 14 * width) + 4 * shape.n_head + 16
    if plain_attention:  # and in bfloat16 a copy of q, k, v in float32
        block += 4 * shape.n_head * (shape.block_size - 1) + (6 * c if bfloat16 else 0)
    kept = shape.n_layer * (4 * c if checkpointing else block) + (block if checkpointing else 0)
    # Compiled: logits and their gradient. Otherwise float32 logarithms, and the gradients of their
    # selection and of the logarithm.
    loss = (2 * width if compiled else 12) * vocabulary
    return Memory(
        weights=n * (WEIGHT_BYTES + (2 if bfloat16 else 0)),
        gradients=n * WEIGHT_BYTES * (2 if buckets else 1),
        optimizer=n * state_bytes,
        activations=tokens * kept,
        logits=tokens * (4 * c + c * (4 + width) + 8 + loss),
    )


def planned(
    config: Config, rows: int, state_bytes: float, *, gpu: bool, buckets: bool = False
) -> Memory:
    """What a rank of a run will need, on a GPU with bfloat16 or on a CPU; arguments as `memory`.

    gpu: what "auto" means in the configuration depends on it.
    """
    train = config.train
    return memory(
        config.model,
        rows,
        state_bytes,
        bfloat16=gpu if train.dtype == "auto" else train.dtype != "float32",
        compiled=gpu if train.compile == "auto" else bool(train.compile),
        checkpointing=train.activation_checkpointing,
        buckets=buckets,
        plain_attention=not gpu and config.model.block_size <= SHORT,
    )


def fitting(batch: Batch, free: float, needs: Callable[[int], float]) -> Batch | None:
    """`batch` in the largest micro-batches that fit into `free` bytes; None: not even of one.

    needs: bytes by the sequences of a micro-batch.
    """
    sizes = (n for n in range(batch.rows, 0, -1) if batch.rows % n == 0)
    found = next((n for n in sizes if needs(n) <= FILL * free), None)
    return batch.at_most(found) if found else None
