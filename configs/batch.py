"""How the global batch of one update is divided among ranks and forward passes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from configs.schema import Config
from configs.validation import ConfigError


@dataclass(frozen=True)
class Batch:
    """How the global batch of one update is divided, in sequences."""

    size: int  # all ranks
    rows: int  # this rank's share of it
    micro: int  # one forward pass
    block_size: int  # tokens of a sequence

    def __str__(self) -> str:
        ranks = f"{self.size // self.rows} ranks x {self.micro_batches} micro-batches"
        tokens = f"{self.size * self.block_size:,} tokens"
        return f"{tokens} = {ranks} x {self.micro} sequences x {self.block_size}"

    def at_most(self, micro: int) -> Batch:
        """The same batch in the largest micro-batches of at most `micro` sequences, from 1."""
        fitting = (n for n in range(1, micro + 1) if self.rows % n == 0)
        return replace(self, micro=max(fitting, default=1))

    @property
    def micro_batches(self) -> int:
        """Forward passes of a rank in one update."""
        return self.rows // self.micro

    @classmethod
    def divide(cls, config: Config, world_size: int) -> Batch:
        """The shares of `world_size` ranks; with micro_batch_size "auto" each in one forward pass.

        Raises:
            ConfigError: the batch does not divide (the message shows the product), or a setting is
                for several ranks.
        """
        tokens, block = config.train.batch_tokens, config.model.block_size
        if world_size == 1 and config.train.gradient_dtype:
            raise ConfigError(
                f"train.gradient_dtype = {config.train.gradient_dtype} is for gradients between"
                " ranks, and this run has one; leave it out, or start several"
            )
        given = f"train.batch_tokens = {tokens} is not divisible by {world_size} ranks"
        unit = world_size * block
        if tokens % unit:
            raise ConfigError(
                f"{given} x block_size {block} = {unit}; the nearest that is: "
                f"{max(1, round(tokens / unit)) * unit}"
            )
        rows = tokens // unit
        given_micro = config.train.micro_batch_size
        micro = rows if given_micro == "auto" else min(given_micro, rows)
        if rows % micro:
            raise ConfigError(
                f"{given} x micro_batch_size {micro} x block_size {block} = {unit * micro}; give a "
                f"train.micro_batch_size that divides the {rows} sequences of a rank"
            )
        return cls(size=rows * world_size, rows=rows, micro=micro, block_size=block)
