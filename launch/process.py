"""One process among others: where it stands, how it meets them, and how it is asked to stop."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from configs import Config, ConfigError
from launch.heartbeat import Heartbeat
from launch.meeting import RunError, facts, meet, store_address

# What a collective waits, in units of launch.timeout_seconds: silence is noticed by Heartbeat, so
# this is for ranks that live and do not get on. It bounds a checkpoint, which the others wait for.
COLLECTIVE_TIMEOUTS = 20


class LostPeerError(RuntimeError):
    """Another rank is gone or has failed; the message is one line that names it, and was said."""


@dataclass
class Process:
    """This process's place: torchrun's environment variables, or a process on its own."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    heartbeat: Heartbeat | None = None

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

    @property
    def host(self) -> str:
        """The name of this machine."""
        return socket.gethostname()

    def join(self, config: Config) -> None:
        """Meet the other processes; RunError where one is missing, or was given something else."""
        torch.set_flush_denormal(True)  # on a CPU denormals make a step up to ten times slower
        gpu = self.device if self.device.type == "cuda" else None
        if gpu:
            torch.cuda.set_device(gpu)
        if self.world_size == 1:
            return
        patience, limits = config.launch.join_seconds, config.launch
        store, hosts = meet(self.rank, self.world_size, facts(config, self.device), patience)
        Heartbeat.announce(store, self.rank)
        late = threading.Timer(
            patience, _cannot_connect, [f"{hosts[self.rank]} (rank {self.rank})"]
        )
        late.daemon = True
        late.start()
        dist.init_process_group(
            "nccl" if gpu else "gloo",
            store=dist.PrefixStore("group", store),
            rank=self.rank,
            world_size=self.world_size,
            timeout=timedelta(seconds=COLLECTIVE_TIMEOUTS * limits.timeout_seconds),
            device_id=gpu,
        )
        dist.barrier()
        late.cancel()
        self.heartbeat = Heartbeat(store.clone(), self.rank, self.local_rank, hosts,
                                   store_address(), limits.timeout_seconds)  # fmt: skip
        self.heartbeat.start()

    @contextmanager
    def naming_lost_peers(self) -> Iterator[None]:
        """An error that another rank is to blame for becomes a LostPeerError."""
        try:
            yield
        except RunError:  # of all ranks
            raise
        except Exception as error:
            # torchrun sends SIGTERM as soon as it sees one rank dead, and waits 30 s.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if self.heartbeat and (culprit := self.heartbeat.blame(error)):
                self.heartbeat.say(culprit)
                raise LostPeerError(culprit) from error
            raise

    def agree(self, problem: str | None) -> None:
        """Raise RunError on all ranks if one has a problem, so that none waits for another."""
        problems: list[str | None] = [problem]
        if self.world_size > 1:
            problems = [None] * self.world_size
            dist.all_gather_object(problems, problem)
        for said in filter(None, problems):
            raise RunError(said)

    def leave(self) -> None:
        """Part from the others; without the barrier gloo aborts now and then."""
        if self.heartbeat:
            self.heartbeat.stop()
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


def _cannot_connect(who: str) -> None:
    """The usual cause where processes find the store and not each other."""
    print(f"error: {who} met the others at {store_address()} but cannot connect to them: set "
          "GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME to the interface between the nodes, and see "
          "that no firewall closes its ports", file=sys.stderr, flush=True)  # fmt: skip
    os._exit(1)


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
