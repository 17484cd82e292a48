"""Whether the runs of a plan fit into the memory that there is: by counting, before any starts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from configs import Batch, Config
from configs.size import FILL, GIB, Memory, fitting, parameters, planned
from contest.plan import Plan
from record.hardware import available_memory

LARGE_GPU = 79.1 * GIB  # of an H100 of 80 GB, as its driver says


@dataclass(frozen=True)
class Room:
    """The memory that a rank of a contest's runs has."""

    gpu: bool
    size: float  # bytes; infinite where it is not known
    name: str


def room(gpu: bool, elsewhere: bool, ranks: int) -> Room:
    """The memory of one rank.

    elsewhere: on nodes of a cluster. ranks: how many share the GPU or, without one, the machine.
    """
    import torch  # takes seconds

    if elsewhere:
        return Room(gpu, LARGE_GPU if gpu else math.inf, "a GPU of 80 GB")
    if gpu and torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        share = f"each of {ranks} runs at once on this " if ranks > 1 else "this "
        return Room(True, device.total_memory / ranks, share + device.name)
    return Room(False, available_memory() / ranks, f"each of {ranks} ranks at once on this machine")


def lines(plan: Plan, here: Room, nproc: int) -> Iterator[str]:
    """What the largest runs need on each rank, and a warning for every arm that does not fit."""
    runs: dict[tuple[Any, ...], Config] = {}
    for job in plan.jobs:
        runs.setdefault((job.contestant, job.config.model, job.config.train), job.config)
    most: dict[str, tuple[Memory, Config, float]] = {}  # by arm, its largest run
    for (arm, _, _), config in runs.items():
        state = _state(config)
        need = _needs(config, state, here, nproc)
        if arm not in most or need.total > most[arm][0].total:
            most[arm] = need, config, state
    largest = max(most, key=lambda arm: most[arm][0].total)
    yield f"memory: at most {most[largest][0]} (arm {largest})"
    for arm, (need, config, state) in most.items():
        if need.total > FILL * here.size:
            yield (
                f"warning: arm '{arm}' needs {need.total / GIB:.3g} GiB on each rank by counting,"
                f" too much for {here.name} ({here.size / GIB:.3g} GiB); give"
                f" {_remedy(config, state, here, nproc)}"
            )


def _state(config: Config) -> float:
    """Bytes of the optimizer's state per parameter."""
    from optim.by_role import state_bytes  # imports torch

    return state_bytes(config) / parameters(config.model)


def _needs(config: Config, state: float, here: Room, nproc: int, rows: int | None = None) -> Memory:
    """The memory of a rank with passes of `rows` sequences, if not those of the configuration."""
    batch = Batch.divide(config, nproc)
    if rows is None:
        rows = 1 if config.train.micro_batch_size == "auto" else batch.micro
    buckets = nproc > 1 and rows < batch.rows
    return planned(config, rows, state, gpu=here.gpu, buckets=buckets)


def _remedy(config: Config, state: float, here: Room, nproc: int) -> str:
    """Settings with which the run fits, by counting."""
    recomputes = config.train.model_copy(update={"activation_checkpointing": True})
    for train, words in ((config.train, ""), (recomputes, "train.activation_checkpointing = true")):
        other, batch = config.model_copy(update={"train": train}), Batch.divide(config, nproc)

        def needs(rows: int, other: Config = other) -> float:
            return _needs(other, state, here, nproc, rows).total

        if found := fitting(batch, here.size, needs):
            return " and ".join(filter(None, [f"train.micro_batch_size = {found.micro}", words]))
    return "a smaller model"
