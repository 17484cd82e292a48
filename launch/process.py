"""One process among others: its place, how it meets them, and what they do together."""

from __future__ import annotations

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
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from configs import Config, ConfigError, Train
from launch import attention, compiler
from launch.heartbeat import Heartbeat
from launch.meeting import RankError, RunError, facts, meet, store_address
from launch.signals import (
    Requests,
    end_with_parent,
    ended_by_the_third_ctrl_c,
    stop_requests,
)
from record.hardware import multiplies_bfloat16

# Time-out of a collective, in units of launch.timeout_seconds. Heartbeat notices silent ranks, so
# this one is for ranks that live but hang. A checkpoint that they wait for must be faster.
COLLECTIVE_TIMEOUTS = 20
RANK_0_PRINTS = 10.0  # s that the other ranks of a node give it to print an error


class LostPeerError(RuntimeError):
    """Another rank is gone or has failed; the message names it, and has been printed."""


@dataclass
class Process:
    """This process and its place among the ranks of a run; on its own it is rank 0 of 1."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    heartbeat: Heartbeat | None = None

    @classmethod
    def from_environment(cls, train: Train) -> Process:
        """From torchrun's environment variables, on the device that the configuration names.

        Raises:
            ConfigError: this process has no GPU of its own, or cannot compile as it should.
        """
        rank, local_rank = (int(os.environ.get(k, 0)) for k in ("RANK", "LOCAL_RANK"))
        world_size = int(os.environ.get("WORLD_SIZE", 1))
        gpus = torch.cuda.device_count()
        device = "cpu" if train.device == "auto" and not gpus else train.device
        if device != "cpu" and local_rank >= gpus:
            raise ConfigError(
                f"process {local_rank + 1} on this node has no GPU of its own: {gpus} visible; "
                "start at most that many processes (--nproc, or torchrun's --nproc_per_node), or "
                "give --train.device cpu"
            )
        place = torch.device("cpu") if device == "cpu" else torch.device("cuda", local_rank)
        compiler.refuse_without(place.type, train.compile)
        return cls(rank, local_rank, world_size, place)

    @staticmethod
    def ranks_given() -> int:
        """How many ranks there will be, by the environment; 0 where it does not say."""
        return int(os.environ.get("WORLD_SIZE", 0))

    @property
    def place(self) -> tuple[int, int]:
        """Rank and number of ranks."""
        return self.rank, self.world_size

    @property
    def host(self) -> str:
        """The name of this machine."""
        return socket.gethostname()

    @property
    def device_name(self) -> str:
        """The GPU's name, or "cpu"."""
        cuda = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if cuda else "cpu"

    def hint(self, dtype: str) -> str:
        """For the opening lines: that another train.dtype than this one would be faster here."""
        slower = dtype == "auto" and self.device.type == "cpu" and multiplies_bfloat16()
        return "; this processor is faster with --train.dtype bfloat16" if slower else ""

    def hardware(self, config: Config) -> dict[str, str]:
        """What changes the numbers of a run and is not in its configuration: "device", "dtype"."""
        return {"device": self.device_name, "dtype": self.dtype(config.train.dtype)}

    def hardware_of_ranks(self, config: Config) -> dict[str, str]:
        """As `hardware`, but what all ranks of a launch must have in common.

        Each rank computes the norm of the gradients and its update by itself. GPUs that add in
        another order round differently, and their weights would drift apart.
        """
        hardware = self.hardware(config)
        if config.launch.accept_other_hardware and self.device.type == "cuda":
            gpu = torch.cuda.get_device_properties(self.device)
            many = f"{gpu.multi_processor_count} multiprocessors"
            hardware["device"] = f"a GPU of architecture {gpu.major}.{gpu.minor} with {many}"
        return hardware

    def dtype(self, setting: str) -> str:
        """The type of matrix products: `setting`, or what "auto" means on this device.

        That is "bfloat16" where a GPU has it natively, else "float32".
        """
        if setting != "auto":
            return setting
        cuda = self.device.type == "cuda"
        native = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float32"

    def precision(self, setting: str) -> tuple[str, torch.autocast]:
        """The type of autocast, and the context in which matrix products have it."""
        dtype = self.dtype(setting)
        if dtype == "bfloat16-weights":  # launch.calls makes them
            dtype = "bfloat16"
        bfloat16 = dtype == "bfloat16"
        return dtype, torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16)

    def join(self, config: Config, shards: dict[str, str]) -> None:
        """Meet the other ranks, and connect to them.

        shards: what is known of the data without reading them, by what it is called.

        Raises:
            RunError: a rank is missing, or has another configuration, other code, shards or
                hardware.
        """
        torch.set_flush_denormal(True)  # on a CPU denormals make a step up to ten times slower
        gpu = self.device if self.device.type == "cuda" else None
        if gpu:
            torch.cuda.set_device(gpu)
        if self.world_size == 1:
            return
        limits = config.launch
        patience = limits.join_seconds
        mine = facts(config, self.hardware_of_ranks(config)) | shards
        store, hosts = meet(self.rank, self.world_size, mine, patience)
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
        self.heartbeat = Heartbeat(
            store.clone(),
            self.rank,
            self.local_rank,
            hosts,
            store_address(),
            limits.timeout_seconds,
        )
        self.heartbeat.start()

    @contextmanager
    def naming_lost_peers(self) -> Iterator[None]:
        """Turn an error that another rank has caused into a LostPeerError.

        Raises:
            LostPeerError: another rank is gone or has failed.
            RankError: this rank cannot go on; the others have been told, and end too.
        """
        try:
            yield
        except RunError:  # raised on all ranks
            raise
        except RankError as error:
            if self.heartbeat:
                raise RankError(self.heartbeat.end_all(str(error))) from error
            raise
        except Exception as error:
            # torchrun sends SIGTERM when one rank is dead, and waits 30 s: time to name that rank.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if self.heartbeat and (culprit := self.heartbeat.blame(error)):
                self.heartbeat.say(culprit)
                raise LostPeerError(culprit) from error
            raise

    @contextmanager
    def agreeing(self, *errors: type[Exception]) -> Iterator[None]:
        """Turn one of these errors, on whatever rank, into a RunError on all.

        Raises:
            RunError: a rank had such an error.
        """
        problem = None
        try:
            yield
        except errors as error:
            problem = str(error)
        self.agree(problem)

    def agree(self, problem: str | None) -> None:
        """Raise the first problem of any rank on all ranks, so that none waits for another.

        Raises:
            RunError: a rank has a problem.
        """
        problems: list[str | None] = [problem]
        if self.world_size > 1:
            problems = [None] * self.world_size
            dist.all_gather_object(problems, problem)
        if first := next(filter(None, problems), None):
            raise RunError(first)

    def distribute(self, model: nn.Module, gradient_dtype: str | None = None) -> nn.Module:
        """`model` under DDP; `model` itself in a single process.

        gradient_dtype: "bfloat16" to send gradients so, which halves the bytes and rounds them.
        """
        if self.world_size == 1:
            return model
        gpus = [self.local_rank] if self.device.type == "cuda" else None
        ddp_model = DistributedDataParallel(model, gpus, gradient_as_bucket_view=True)
        if gradient_dtype == "bfloat16":
            # under another name: torch refuses its own under gloo, where it works too
            ddp_model.register_comm_hook(
                None, lambda state, bucket: bf16_compress_hook(state, bucket)
            )
        return ddp_model

    @contextmanager
    def joined(self, config: Config, shards: dict[str, str]) -> Iterator[Requests]:
        """Meet the other ranks, as `join`; leave them at the end, also after a RunError.

        Gives a list that grows by the names of the signals that ask this process to stop. Its
        `at_once` holds until the caller says that there is something to save.

        Raises:
            RunError: as `join`.
            KeyboardInterrupt: Ctrl-C, while `at_once` holds.
        """
        with ended_by_the_third_ctrl_c(), stop_requests() as signals:
            signals.at_once = True
            self.join(config, shards)
            try:
                with attention.preferred(self.device, config.model.block_size):
                    yield signals
            except RunError:  # on all ranks
                self.leave()
                raise
            self.leave()

    def leave(self) -> None:
        """Leave the process group; without the barrier gloo aborts now and then."""
        if self.heartbeat:
            self.heartbeat.stop()
        if self.world_size > 1:
            dist.barrier()
            dist.destroy_process_group()

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def max(self, tensor: Tensor) -> Tensor:
        """Largest over all ranks, element by element, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor

    def each(self, number: int) -> list[int]:
        """The number of each rank, by rank; from -2^63 to 2^63 - 1."""
        numbers = torch.zeros(self.world_size, dtype=torch.int64, device=self.device)
        numbers[self.rank] = number
        return [int(x) for x in self.sum(numbers).tolist()]

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on all ranks."""
        box = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def synchronize(self) -> None:
        """Wait until the device has done all its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _cannot_connect(who: str) -> None:
    """End the process with the usual reason why ranks find the store but not each other."""
    problem = f"{who} met the others at {store_address()} but cannot connect to them"
    remedy = "set GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME to the interface between the nodes"
    remedy += ", and check that no firewall closes its ports"
    print(f"error: {problem}: {remedy}", file=sys.stderr, flush=True)
    os._exit(1)


def print_once(text: str, error: bool = False) -> int:
    """Print from one process on each node; returns the exit code 0."""
    stream = sys.stderr if error else sys.stdout
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        try:
            print(text, file=stream, flush=True)
        except BrokenPipeError:  # `| head` has read enough; at exit Python would say so
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 0


def run_main(work: Callable[[], int], user_errors: tuple[type[Exception], ...]) -> int:
    """Do `work`; returns its exit code, 2 after a one-line error, 1 if a rank was lost.

    130 after a Ctrl-C that the work does not note. It also ends if its torchrun agent dies.
    """
    end_with_parent()
    caught: tuple[type[Exception], ...] = (RunError, RankError, *user_errors)
    try:
        return work()
    except LostPeerError:
        return 1
    except KeyboardInterrupt:
        print_once("stopped by SIGINT; the same command begins again", error=True)
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            os._exit(128 + signal.SIGINT)  # other ranks may be gone: nothing waits for them
        return 128 + signal.SIGINT
    except caught as error:
        print_once(f"error: {error}", error=True)
        if int(os.environ.get("LOCAL_RANK", 0)):
            time.sleep(RANK_0_PRINTS)  # torchrun ends all ranks at the first failure
        return 2
