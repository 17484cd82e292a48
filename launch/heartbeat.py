"""Signs of life between the ranks of a run, so that a lost one is noticed, and named.

A collective waits for a lost rank, or fails with "connection closed by peer", which says nothing of
who. So a thread of each rank counts up a key of the store once a second. Rank 0 watches all the
others and they watch rank 0: a world of N costs N small messages a second. A rank may be as long as
it likes over a checkpoint, an evaluation or a compilation, since the thread goes on meanwhile; a
process that is dead or frozen, or whose machine or link is gone, falls silent.

Silence is counted in ticks, not read off a clock: a clock that is set, or a job that is suspended
as a whole and goes on, ends nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

import torch.distributed as dist

TICK_SECONDS = 1.0
ROLL_CALL_TICKS = 3  # to tell, after a collective has failed, who is silent
LEFT, FAILED = "left", "failed"  # last beats: of a rank that is through, of one with an error


class Heartbeat:
    """The beat of one rank, and its watch over others; for as long as the run lasts.

    store: a connection of its own, on which every rank has called `announce` before anyone is here.
    hosts: by rank. timeout_seconds: silence after which the process ends, with exit code 1.
    """

    def __init__(
        self, store: dist.Store, rank: int, local_rank: int, hosts: Sequence[str], address: str,
        timeout_seconds: float,
    ) -> None:  # fmt: skip
        self.store, self.rank, self.local_rank, self.hosts = store, rank, local_rank, hosts
        self.address, self.patience = address, timeout_seconds / TICK_SECONDS
        self.others = [r for r in range(len(hosts)) if r != rank]
        self.beats: dict[int, str] = {}  # of the ranks that are watched
        self.answers = 0  # of the store
        self.error: str | None = None  # why this rank fails
        self.first = ""  # which rank failed first, and why
        self.sentence = ""  # rank 0's, which ends all
        self.ending = threading.Event()
        self.threads = [
            threading.Thread(target=work, name=work.__name__, daemon=True)
            for work in (self.beat, self.watch)
        ]

    @staticmethod
    def announce(store: dist.Store, rank: int) -> None:
        """The first beat."""
        store.set(f"beat/{rank}", "0")

    def start(self) -> None:
        """Begin to beat and to watch."""
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """This rank is through: nobody need wait for its beat."""
        self.ending.set()
        for thread in self.threads:
            thread.join(2 * TICK_SECONDS)

    def beat(self) -> None:
        """Thread: all talk with the store, which may fail or take forever."""
        count, told = 0, False
        while not self.ending.wait(TICK_SECONDS):
            count += 1
            try:
                if self.error and not told:
                    if self.store.add("failures", 1) == 1:
                        self.store.set("first", f"{self.name(self.rank)} failed: {self.error}")
                    told = True
                self.store.set(f"beat/{self.rank}", FAILED if told else str(count))
                watched = self.others if self.rank == 0 or told else [0]
                beats = [x.decode() for x in self.store.multi_get([f"beat/{r}" for r in watched])]
                for key in ("first", "sentence"):
                    if self.store.check([key]):
                        setattr(self, key, self.store.get(key).decode())
                self.beats = dict(zip(watched, beats, strict=True))
                self.answers += 1
            except RuntimeError:  # no answer, or none in time: `watch` counts
                pass
        with contextlib.suppress(RuntimeError):  # the store may have gone before this rank
            self.store.set(f"beat/{self.rank}", LEFT)

    def watch(self) -> None:
        """Thread: ends the process when another is silent for too long, or rank 0 says so."""
        silence: Counter[int] = Counter()
        before, answers, unanswered = self.beats, self.answers, 0
        while not self.ending.wait(TICK_SECONDS) and not self.error:
            if self.sentence:
                self.end(self.sentence)
            if self.answers == answers:
                unanswered += 1
                if unanswered > self.patience:
                    self.end(self.no_store())
                continue
            beats, answers, unanswered = self.beats, self.answers, 0
            for rank, beat in beats.items():
                quiet = beat == before.get(rank) and beat != LEFT
                silence[rank] = silence[rank] + 1 if quiet else 0
            before = beats
            if lost := [rank for rank in beats if silence[rank] > self.patience]:
                seconds = self.patience * TICK_SECONDS
                text = self.first if any(beats[r] == FAILED for r in lost) else ""
                self.end(text or f"lost {self.names(lost)}: no sign of life for {seconds:g} s")

    def end(self, text: str) -> NoReturn:
        """Say it, let the others hear it, and end the process, whatever its main thread does."""
        if self.rank == 0:
            with contextlib.suppress(RuntimeError):
                self.store.set("sentence", text)
            time.sleep(3 * TICK_SECONDS)  # rank 0 may keep the store
        self.say(text)
        os._exit(1)

    def say(self, text: str) -> None:
        """One line on each node: by its first rank, or the second if the first is the one lost."""
        first = self.rank - self.local_rank
        if self.rank == first or (self.rank == first + 1 and self.name(first) in text):
            print(f"error: {text}", file=sys.stderr, flush=True)
        else:
            time.sleep(TICK_SECONDS)  # the first failure has torchrun end all ranks of a node

    def blame(self, error: BaseException) -> str | None:
        """Who is to blame for an error in a collective, after a roll call; None: this rank."""
        self.error = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        asked, silent, heard = self.answers, self.others, 0
        before: dict[int, str] = {}
        for _ in range(3 * ROLL_CALL_TICKS):
            time.sleep(TICK_SECONDS)
            beats = self.beats
            if self.answers < asked + 2 or len(beats) < len(self.others):
                continue  # what is known may be from before the error
            if not before:
                before = beats
                continue
            silent = [
                r for r in self.others if beats[r] == before[r] and beats[r] not in (LEFT, FAILED)
            ]
            heard += 1
            if heard == ROLL_CALL_TICKS or (not silent and self.first):
                break
        if not heard:
            return self.no_store()
        if silent:
            return f"lost {self.names(silent)} ({self.error})"
        return None if self.first.startswith(f"{self.name(self.rank)} ") else self.first or None

    def no_store(self) -> str:
        """The store, or the way to it, is gone."""
        return f"lost {self.name(0)}: no answer from the store at {self.address}"

    def name(self, rank: int) -> str:
        """A rank in words."""
        return f"rank {rank} on {self.hosts[rank]}"

    def names(self, ranks: Sequence[int]) -> str:
        """Some of them, so that it stays a line."""
        more = f" and {len(ranks) - 4} more" if len(ranks) > 4 else ""
        return ", ".join(map(self.name, ranks[:4])) + more
