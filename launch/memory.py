"""The memory of a rank: micro-batches that fit, and one line where something does not."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from configs import Batch, Config
from configs.size import FILL, GIB, WEIGHT_BYTES, fitting, parameters, planned
from launch.meeting import RankError, RunError
from launch.process import Process
from record.hardware import available_memory
from record.runlog import Log

# What torch, CUDA's libraries and the allocators of CPUs say, in RuntimeErrors.
_SIGNS = ("out of memory", "t allocate memory", "not enough memory", "bad_alloc", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python says that memory does not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    own = isinstance(error, RunError | RankError)
    return not own and isinstance(error, RuntimeError) and any(s in str(error) for s in _SIGNS)


@contextmanager
def explained(config: Config, batch: Batch | None = None) -> Iterator[None]:
    """Turn a lack of memory into a line that names the key to change, and its next value.

    batch: as it is divided; None before there is any forward pass.

    Raises:
        RankError: memory did not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RankError(f"out of memory{_asked(error)}{_remedy(config, batch)}") from error


def _asked(error: BaseException) -> str:
    """How much was asked for in vain, in brackets, where the error says so."""
    found = re.search(r"(?:ried|nable) to allocate ([\d.,]+) ?(\w+)", str(error))
    if not found:
        return ""
    number, unit = found[1].rstrip(".,"), found[2]
    text = f"{float(number) / GIB:.3g} GiB" if unit == "bytes" else f"{number} {unit}"
    return f" ({text} more were asked for)"


def _remedy(config: Config, batch: Batch | None) -> str:
    """What did not fit, and what to change."""
    fewer = "a smaller model, or more ranks that share its state (--train.shard_optimizer true)"
    if batch is None:
        return f": the model and its optimizer do not fit; give {fewer}"
    many = f"micro-batches of {batch.micro} sequences" if batch.micro > 1 else "one sequence"
    remedy = f"--train.micro_batch_size {batch.at_most(batch.micro - 1).micro}"
    if batch.micro == 1:
        fine = config.train.activation_checkpointing
        remedy = fewer if fine else "--train.activation_checkpointing true"
    return f" with {many} in a forward pass; give {remedy}"


# ------------------------------------------------------------------------------ "auto"


def fitted(
    run: Any,
    state: Any,
    log: Log,
    state_to_come: Callable[..., int],
    warm_up: Callable[[Any, Any], float],
) -> Batch:
    """The batch in the micro-batches of the configuration; for "auto" in the largest that fit.

    The search begins with those of the run's last launch, else with the largest that fit by
    counting, and takes half of them until a forward and a backward pass succeed on all ranks.

    Args:
        run: config, batch and process, as attributes.
        state: model, compiled, ddp_model, optimizer and dtype, as attributes.
        log: of the run, on rank 0.
        state_to_come: bytes that the optimizer will take, by (config, optimizer, rank, ranks).
        warm_up: the passes of (run, state).

    Raises:
        RunError: not even one sequence fits; on all ranks.
    """
    config, process, batch = run.config, run.process, run.batch
    if config.train.micro_batch_size != "auto":
        return batch
    to_come = state_to_come(config, state.optimizer, *process.place)
    before = process.broadcast(_of_last_launch(log))
    batch = batch.at_most(before or min(process.each(_counted(run, state, to_come))))
    while not all(process.each(_fits(replace(run, batch=batch), state, to_come, warm_up))):
        if batch.micro == 1:
            process.agree(f"out of memory{_remedy(config, batch)}")
        batch = batch.at_most(batch.micro // 2)
    if process.rank == 0 and before and batch.micro != before:
        text = f"micro-batches of {batch.micro} sequences, {before} in the last launch"
        print(f"notice: {text}: gradients are added in another order", flush=True)
    return batch


def _of_last_launch(log: Log) -> int | None:
    """The size of micro-batches in the last launch that has recorded it."""
    for launch in reversed(log.facts.get("launches", [])):
        if size := launch.get("environment", {}).get("micro_batch_size"):
            return int(size)
    return None


def _counted(run: Any, state: Any, to_come: int) -> int:
    """Sequences in the largest micro-batch that fits this rank by counting; at least one."""
    weights = WEIGHT_BYTES * parameters(run.config.model)  # they are there
    free = _available(run.process.device)
    found = fitting(run.batch, free, lambda rows: _needs(run, state, to_come, rows) - weights)
    return found.micro if found else 1


def _needs(run: Any, state: Any, to_come: int, rows: int) -> float:
    """Bytes of this rank, by counting, with passes of `rows` sequences."""
    train = run.config.train.model_copy(update={"dtype": state.dtype})
    config = run.config.model_copy(update={"train": train})
    each, gpu = to_come / parameters(config.model), run.process.device.type == "cuda"
    return planned(config, rows, each, gpu=gpu).total


def _available(device: torch.device) -> float:
    """Bytes that this rank can still take: of its GPU, or its share of the machine's memory."""
    if device.type != "cuda":
        return available_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(free + unused)


def _fits(run: Any, state: Any, to_come: int, warm_up: Callable[[Any, Any], float]) -> bool:
    """Whether a forward and a backward pass succeed here, beside what a step will have added."""
    process, several = run.process, run.process.world_size > 1
    alone = Process(0, process.local_rank, 1, process.device)  # no rank waits for another
    if several:
        state.ddp_model.require_backward_grad_sync = False
    try:
        _try(replace(run, process=alone), state, to_come, warm_up)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    else:
        fits = True
    if several:
        state.ddp_model.require_backward_grad_sync = True
    state.model.zero_grad(set_to_none=True)
    if not fits:
        torch.compiler.reset()  # a compiled form of every size that was tried would be kept
    gc.collect()
    if process.device.type == "cuda":
        torch.cuda.empty_cache()
    return fits


def _try(run: Any, state: Any, to_come: int, warm_up: Callable[[Any, Any], float]) -> None:
    """One warm-up, beside what a step will have added and a reserve."""
    gradients = WEIGHT_BYTES * sum(p.numel() for p in state.model.parameters())
    held = to_come + (gradients if run.batch.micro_batches > 1 else 0)
    reserve = int((1 / FILL - 1) * _needs(run, state, to_come, run.batch.micro))
    place = torch.empty(held + reserve, dtype=torch.uint8, device=run.process.device)
    warm_up(run, state)
    del place


# ------------------------------------------------------------------------------ by counting


def estimates(config: Config, state_bytes: int) -> str:
    """What a rank will need, by counting, in lines that TOML takes for comments.

    state_bytes: of the optimizer, all of it.
    """
    wanted = config.train.device
    gpu = torch.cuda.is_available() if wanted == "auto" else wanted == "cuda"
    places = [True] if gpu else [False, True] if wanted == "auto" else [False]
    return "".join(f"# memory: {_estimate(config, state_bytes, place)}\n" for place in places)


def _estimate(config: Config, state_bytes: int, gpu: bool) -> str:
    given, each = config.train.micro_batch_size, state_bytes / parameters(config.model)
    rows = (
        1 if given == "auto" else min(given, config.train.batch_tokens // config.model.block_size)
    )
    needs, more = (planned(config, n, each, gpu=gpu) for n in (rows, rows + 1))
    where, sequences = "a GPU" if gpu else "a CPU", f"{rows} sequence{'s' if rows > 1 else ''}"
    text = f"on {where} {needs}, with {sequences} in a forward pass"
    more_text = f"; each more takes {(more.total - needs.total) / GIB:.3g} GiB"
    return text + (more_text if given == "auto" else "")
