"""Tokenize batches of documents on several processes, in order, with bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

import numpy as np

from data.formats import DataError
from data.vocabulary import Tokenizer, tokenizer_named

Note = TypeVar("Note")

BATCHES_AHEAD = 4  # per worker, so that none is idle while the writer flushes a shard


def available_cores() -> int:
    """Cores that this process may use: a job's share of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encoded(
    batches: Iterable[tuple[Note, Sequence[str]]], tokenizer: Tokenizer, *, workers: int | None
) -> Generator[tuple[Note, np.ndarray]]:
    """For each (note, documents) in order: the note and the documents' tokens, uint16 (n,).

    Processes, not threads: turning tiktoken's lists into arrays holds the interpreter's lock.
    They are spawned, because a fork would copy locks held by the threads of `datasets`.

    Raises:
        DataError: a worker died.
    """
    workers = workers or available_cores()
    pending: deque[tuple[Note, Future[np.ndarray]]] = deque()
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(tokenizer.name,),
    )
    try:
        for note, documents in batches:
            pending.append((note, pool.submit(_encode, documents)))
            if len(pending) >= BATCHES_AHEAD * workers:
                yield _first(pending)
        while pending:
            yield _first(pending)
    except BrokenProcessPool:
        raise DataError(
            "a tokenizer process died, perhaps out of memory; give the same command with fewer"
            " --workers: it goes on after the last whole shard"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def in_batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _first(pending: deque[tuple[Note, Future[np.ndarray]]]) -> tuple[Note, np.ndarray]:
    note, future = pending.popleft()
    return note, future.result()


_worker_tokenizer: Tokenizer | None = None  # set once, in a worker, by _start_worker


def _start_worker(name: str) -> None:
    global _worker_tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _worker_tokenizer = tokenizer_named(name)


def _die_with_parent() -> None:
    """End when the parent is killed; without this its workers would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode(documents: Sequence[str]) -> np.ndarray:
    assert _worker_tokenizer is not None
    return _worker_tokenizer.encode(documents)
