"""One process among others: where it stands, how it meets them, and how it is asked to stop."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from configs import Config, ConfigError
from launch.heartbeat import Heartbeat
from launch.meeting import RunError, facts, meet, store_address
from record.runlog import RecordError

T = TypeVar("T")

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

    @property
    def device_name(self) -> str:
        """The GPU's name, or "cpu"."""
        cuda = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if cuda else "cpu"

    def dtype(self, setting: str) -> str:
        """What "auto" means here for matrix products: "bfloat16" where a GPU has it natively."""
        if setting != "auto":
            return setting
        cuda = self.device.type == "cuda"
        native = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float32"

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

    def on_rank_0(self, work: Callable[[], T]) -> T | None:
        """Do `work` on rank 0 alone; returns its result there and None elsewhere.

        Raises:
            RunError: `work` raised RecordError or OSError; on all ranks, with its message.
        """
        result, problem = None, None
        if self.rank == 0:
            try:
                result = work()
            except (RecordError, OSError) as error:
                problem = str(error)
        self.agree(problem)
        return result

    def distribute(self, model: nn.Module) -> nn.Module:
        """`model` as a rank of many calls it, under DDP; itself where there is one process."""
        if self.world_size == 1:
            return model
        gpus = [self.local_rank] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, gpus, gradient_as_bucket_view=True)

    @contextmanager
    def joined(self, config: Config) -> Iterator[None]:
        """Meet the other processes, and part from them at the end, also after a RunError.

        Raises:
            RunError: one is missing, or was given something else.
        """
        self.join(config)
        try:
            yield
        except RunError:  # on all ranks
            self.leave()
            raise
        self.leave()

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


def print_once(text: str, error: bool = False) -> int:
    """Print from one process on each node; returns 0, the exit code of having said so."""
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        print(text, file=sys.stderr if error else sys.stdout)
    return 0


def exit_code(work: Callable[[], int], user_errors: tuple[type[Exception], ...]) -> int:
    """What `work` returns; 2 after one line for a user error, 1 where another rank was lost."""
    caught: tuple[type[Exception], ...] = (RunError, *user_errors)
    try:
        return work()
    except LostPeerError:
        return 1
    except caught as error:
        print_once(f"error: {error}", error=True)
        if int(os.environ.get("LOCAL_RANK", 0)):
            time.sleep(10)  # the first failure has torchrun end all ranks: let it be one that spoke
        return 2


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
