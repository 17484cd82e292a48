"""Signs of life between the ranks of a run, so that a lost one is noticed, and named.

A collective waits for a lost rank, or fails with "connection closed by peer", which does not say
which peer. So a thread of each rank counts up a key of the store once a second. Rank 0 watches all
others, and they watch rank 0: N ranks cost N small messages a second. A checkpoint, an evaluation
or a compilation may take as long as it likes, since the thread runs on. A rank falls silent when
its process is dead or frozen, or when its machine or its link is gone.

Silence is counted in ticks, not read off a clock. So the run survives when somebody sets the clock.
It should also survive when the whole job is suspended and resumed (not tried).
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
ROLL_CALL_TICKS = 3  # how long to listen, after a collective has failed, for who is silent
LEFT, FAILED = "left", "failed"  # last beats: of a rank that has finished, of one with an error


class Heartbeat:
    """The beat of one rank, and its watch over others, for as long as the run lasts.

    store: a connection of its own; every rank has called `announce` on it before.
    hosts: host names by rank. address: the store's, for messages.
    timeout_seconds: silence after which this process ends, with exit code 1.
    """

    def __init__(
        self,
        store: dist.Store,
        rank: int,
        local_rank: int,
        hosts: Sequence[str],
        address: str,
        timeout_seconds: float,
    ) -> None:
        self.store, self.rank, self.local_rank, self.hosts = store, rank, local_rank, hosts
        self.address, self.patience = address, timeout_seconds / TICK_SECONDS
        self.others = [r for r in range(len(hosts)) if r != rank]
        self.beats: dict[int, str] = {}  # the last one of each rank that is watched
        self.answers = 0  # how often the store has answered
        self.error: str | None = None  # why this rank fails
        self.first = ""  # which rank failed first, and why
        self.sentence = ""  # what rank 0 tells all ranks to end with
        self.mistake = ""  # what a rank tells all others to end with: the user has to mend it
        self.ending = threading.Event()
        self.threads = [
            threading.Thread(target=work, name=work.__name__, daemon=True)
            for work in (self._beat, self._watch)
        ]

    @staticmethod
    def announce(store: dist.Store, rank: int) -> None:
        """Send the first beat of `rank`."""
        store.set(f"beat/{rank}", "0")

    def start(self) -> None:
        """Begin to beat and to watch."""
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Tell the others that this rank has finished, so that nobody waits for its beat."""
        self.ending.set()
        for thread in self.threads:
            thread.join(2 * TICK_SECONDS)

    def _beat(self) -> None:
        """Thread that does all talking with the store, which may fail or take forever."""
        count, told = 0, False
        while not self.ending.wait(TICK_SECONDS):
            count += 1
            try:
                if self.error and not told:
                    if self.store.add("failures", 1) == 1:
                        self.store.set("first", f"{self._name(self.rank)} failed: {self.error}")
                    told = True
                if self.mistake and self.mistake == self.error:  # all is said, and the store may go
                    self.store.set("mistake", self.mistake)
                    break
                self.store.set(f"beat/{self.rank}", FAILED if told else str(count))
                watched = self.others if self.rank == 0 or told else [0]
                beats = [x.decode() for x in self.store.multi_get([f"beat/{r}" for r in watched])]
                for key in ("first", "sentence", "mistake"):
                    if self.store.check([key]):
                        setattr(self, key, self.store.get(key).decode())
                self.beats = dict(zip(watched, beats, strict=True))
                self.answers += 1
            except RuntimeError:  # no answer, or none in time: `_watch` counts these
                pass
        with contextlib.suppress(RuntimeError):  # the store may have gone before this rank
            self.store.set(f"beat/{self.rank}", LEFT)

    def _watch(self) -> None:
        """Thread that ends the process when a rank is silent for too long, or rank 0 says so."""
        silence: Counter[int] = Counter()
        before, answers, unanswered = self.beats, self.answers, 0
        while not self.ending.wait(TICK_SECONDS) and not self.error:
            if self.mistake:
                self._end(self.mistake, code=2)
            if self.sentence:
                self._end(self.sentence)
            if self.answers == answers:
                unanswered += 1
                if unanswered > self.patience:
                    self._end(self._no_store())
                continue
            beats, answers, unanswered = self.beats, self.answers, 0
            for rank, beat in beats.items():
                quiet = beat == before.get(rank) and beat != LEFT
                silence[rank] = silence[rank] + 1 if quiet else 0
            before = beats
            if lost := [rank for rank in beats if silence[rank] > self.patience]:
                seconds = self.patience * TICK_SECONDS
                text = self.first if any(beats[r] == FAILED for r in lost) else ""
                self._end(text or f"lost {self._names(lost)}: no sign of life for {seconds:g} s")

    def _end(self, text: str, code: int = 1) -> NoReturn:
        """Print `text`, pass it on if this is rank 0, and end the process from this thread."""
        if self.rank == 0:
            with contextlib.suppress(RuntimeError):
                self.store.set("mistake" if code == 2 else "sentence", text)
            time.sleep(3 * TICK_SECONDS)  # the store may live in rank 0: let the others read it
        self.say(text)
        os._exit(code)

    def end_all(self, text: str) -> str:
        """Tell all other ranks to end with `text`, for a user, and the name of this rank before it.

        Returns the whole line. Takes some seconds, in which the others read it.
        """
        self.error = f"{self._name(self.rank)}: {text}"
        self.mistake = self.error
        time.sleep(4 * TICK_SECONDS)  # a tick to send it, and as `_end`
        return self.error

    def say(self, text: str) -> None:
        """Print one line on each node: from its first rank, or its second if the first is lost."""
        first = self.rank - self.local_rank
        if self.rank == first or (self.rank == first + 1 and self._name(first) in text):
            print(f"error: {text}", file=sys.stderr, flush=True)
        else:
            time.sleep(TICK_SECONDS)  # torchrun ends a node's ranks at the first failure

    def blame(self, error: BaseException) -> str | None:
        """Which rank caused an error in a collective, in words; None if it is this one.

        Takes a roll call of some seconds.
        """
        self.error = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        asked, silent, heard = self.answers, self.others, 0
        before: dict[int, str] = {}
        for _ in range(3 * ROLL_CALL_TICKS):
            time.sleep(TICK_SECONDS)
            beats = self.beats
            if self.answers < asked + 2 or len(beats) < len(self.others):
                continue  # these beats may be from before the error
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
            return self._no_store()
        if silent:
            return f"lost {self._names(silent)} ({self.error})"
        return None if self.first.startswith(f"{self._name(self.rank)} ") else self.first or None

    def _no_store(self) -> str:
        """What to say when the store, or the network to it, is gone."""
        return f"lost {self._name(0)}: no answer from the store at {self.address}"

    def _name(self, rank: int) -> str:
        """A rank in words."""
        return f"rank {rank} on {self.hosts[rank]}"

    def _names(self, ranks: Sequence[int]) -> str:
        """The first four in words, so that it stays a line."""
        more = f" and {len(ranks) - 4} more" if len(ranks) > 4 else ""
        return ", ".join(map(self._name, ranks[:4])) + more
