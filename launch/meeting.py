"""The ranks of a run meet at a store, and go on only if all are there and were given the same.

Otherwise a missing node, or one with another world size, other code or other settings, would show
as a collective that never returns. Here each rank describes itself, rank 0 compares, and all ranks
read its verdict: one line that names the node, printed on every node within `join_seconds`.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from configs import Config
from configs.loading import flat
from record.hardware import code_files

# How to mend a difference between ranks, by the first word of what differs.
REMEDIES = {
    "device": "launch.accept_other_hardware = true trains on GPUs with other names; with another"
    " architecture or number of multiprocessors their weights would drift apart",
    "dtype": "give --train.dtype, which is auto now",
    "shard": "copy the same shards to all nodes",
}


class RunError(RuntimeError):
    """The run cannot start or go on; the message is one line for the user. On all ranks."""


class RankError(RuntimeError):
    """This rank cannot go on, while others might; the message is one line for the user."""


def facts(config: Config, hardware: Mapping[str, str]) -> dict[str, str]:
    """What must be equal on all ranks, by name. `log` may differ, since only rank 0 writes."""
    of_run = {
        **hardware,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
    given = flat({k: v for k, v in config.table().items() if k != "log"})
    settings = {key: repr(value) for key, value in given.items()}
    code = {f"the code of {path}": digest for path, digest in code_files().items()}
    return of_run | settings | code


def meet(
    rank: int, world_size: int, facts: Mapping[str, str], seconds: float
) -> tuple[Any, list[str]]:
    """The store that all ranks share (a dist.Store; its stubs lack `clone`), and hosts by rank.

    Raises:
        RunError: a rank is missing after `seconds`, or differs; raised on all ranks that came.
    """
    address, end = store_address(), time.monotonic() + seconds
    me = {"host": socket.gethostname(), "facts": {"the world size": str(world_size), **facts}}
    try:
        store = _store(rank, seconds)
        if store.add(f"came/{rank}", 1) > 1:
            problem = f"{me['host']} comes as rank {rank}, which is there already"
            raise RunError(f"{problem}: give each node its own NODE_RANK")
        store.set(f"rank/{rank}", json.dumps(me))
        if rank == 0:
            verdict = _compare(store, world_size, me, end)
            store.set("verdict", json.dumps(verdict))
            _until_read(store, verdict)
        else:
            # Wait longer than rank 0 does, whose verdict names who is missing.
            store.wait(["verdict"], timedelta(seconds=max(1.0, end - time.monotonic()) + 5))
            verdict = json.loads(store.get("verdict"))
            store.add("read", 1)
    except dist.DistError as error:
        reason = str(error).splitlines()[0][:120]
        raise RunError(
            f"{me['host']} (rank {rank}) got no answer from rank 0's node at {address} within "
            f"{seconds:g} s; is it up, and reachable? ({reason})"
        ) from None
    if verdict["problem"]:
        raise RunError(verdict["problem"])
    if len(verdict["hosts"]) != world_size:
        there = f"{address} runs {len(verdict['hosts'])}"
        problem = f"{me['host']} comes as rank {rank} of {world_size}, but {there}"
        raise RunError(f"{problem}: give all nodes the same NNODES")
    return store, verdict["hosts"]


def store_address() -> str:
    """Where the ranks meet, from the environment."""
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def _store(rank: int, seconds: float) -> dist.Store:
    """The agent's store where torchrun shares it, else one that rank 0 keeps.

    torchrun's store outlives a restart of the ranks and keeps the keys of the earlier attempt, so
    ours get a prefix. Elastic runs must not share it (TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1), since
    their agents count restarts differently.
    """
    of_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=rank == 0 and not of_agent,
        timeout=timedelta(seconds=seconds),
        wait_for_workers=False,
        multi_tenant=True,
    )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if of_agent else "0"
    return dist.PrefixStore(f"attempt {attempt}", store)


def _compare(store: dist.Store, world_size: int, me: dict[str, Any], end: float) -> dict[str, Any]:
    """As rank 0: hosts by rank, and the problem that keeps the run from starting."""
    missing, hosts, began = [], [me["host"]], time.monotonic()
    problem = None
    for rank in range(1, world_size):
        left = max(0.001, end - time.monotonic())
        try:
            store.wait([f"rank/{rank}"], timedelta(seconds=left))
        except dist.DistStoreError:
            missing.append(rank)
            continue
        other = json.loads(store.get(f"rank/{rank}"))
        hosts.append(other["host"])
        if problem := problem or _difference(me, rank, other):
            break  # no need to wait for the rest
    if missing and not problem:
        waited = time.monotonic() - began
        problem = (
            f"{_nodes(missing)} did not come to {me['host']} ({store_address()}) within "
            f"{waited:.0f} s: started, with the same NNODES? its own output may say why"
        )
    return {"problem": problem, "hosts": hosts}


def _difference(me: dict[str, Any], rank: int, other: dict[str, Any]) -> str | None:
    """One line on the first difference between another rank and rank 0."""
    mine, its = me["facts"], other["facts"]
    odd = [key for key in {**mine, **its} if mine.get(key) != its.get(key)]
    if not odd:
        return None
    key, more = odd[0], f" and {len(odd) - 1} more differ" if len(odd) > 1 else ""
    remedy = REMEDIES.get(key.split()[0])
    return (
        f"{other['host']} (rank {rank}) is not like {me['host']} (rank 0): {key} is "
        f"{its.get(key, 'absent')} there and {mine.get(key, 'absent')} here{more}"
        f"{f'; {remedy}' if remedy else ''}"
    )


def _nodes(ranks: list[int]) -> str:
    """Ranks in words, with their nodes, if those have as many processes as this one."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    nodes = sorted({rank // here for rank in ranks})
    return f"node {', '.join(map(str, nodes))} (rank {', '.join(map(str, ranks))})"


def _until_read(store: dist.Store, verdict: dict[str, Any]) -> None:
    """Stay until all who came have read the problem, since the store may live in rank 0."""
    end = time.monotonic() + 5
    while verdict["problem"] and time.monotonic() < end:
        if store.add("read", 0) >= len(verdict["hosts"]) - 1:
            break
        time.sleep(0.1)
