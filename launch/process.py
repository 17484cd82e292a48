"""One process among others: where it stands, how it meets them, and how it is asked to stop."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from configs.typing import ConfigError


@dataclass(frozen=True)
class Process:
    """This process's place: torchrun's environment variables, or a process on its own."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    @classmethod
    def from_environment(cls, device: str) -> Process:
        """Raises ConfigError where the device is not there."""
        rank, local_rank = (int(os.environ.get(k, 0)) for k in ("RANK", "LOCAL_RANK"))
        world_size = int(os.environ.get("WORLD_SIZE", 1))
        gpus = torch.cuda.device_count()
        if device == "cpu" or (device == "auto" and not gpus):
            return cls(rank, local_rank, world_size, torch.device("cpu"))
        if local_rank >= gpus:
            raise ConfigError(
                f"process {local_rank + 1} on this node has no GPU of its own: {gpus} visible; "
                "give torchrun --nproc_per_node at most that, or --train.device cpu"
            )
        return cls(rank, local_rank, world_size, torch.device("cuda", local_rank))

    def join(self) -> None:
        """Meet the other processes."""
        torch.set_flush_denormal(True)  # on a CPU denormals make a step up to ten times slower
        gpu = self.device if self.device.type == "cuda" else None
        if gpu:
            torch.cuda.set_device(gpu)
        if self.world_size > 1:
            dist.init_process_group("nccl" if gpu else "gloo", device_id=gpu)

    def leave(self) -> None:
        """Part from the others; without the barrier gloo aborts now and then."""
        if self.world_size > 1:
            dist.barrier()
            dist.destroy_process_group()

    def sum(self, tensor: Tensor) -> Tensor:
        """In place, over all ranks."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, everywhere."""
        box = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def synchronize(self) -> None:
        """Wait until the device has done what was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@contextmanager
def stop_requests() -> Iterator[list[str]]:
    """Names of the signals received meanwhile; the loop acts on them at the next step boundary."""
    received: list[str] = []
    caught = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup stays what it says
        caught.append(signal.SIGHUP)

    def note(number: int, _frame: object) -> None:
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in caught}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Have the kernel send SIGTERM when the torchrun agent dies, even by SIGKILL; Linux only.

    Without it the ranks of a killed agent train on, and hold the GPUs.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or sys.platform != "linux":
        return
    parent, pr_set_pdeathsig = os.getppid(), 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:  # it died just before
        signal.raise_signal(signal.SIGTERM)
