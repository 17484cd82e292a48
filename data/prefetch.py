"""Batches of a training step, prepared on a thread while the device computes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from data.formats import DataError

if TYPE_CHECKING:
    from torch import Tensor

AHEAD = 2  # batches prepared in advance


class Prefetcher:
    """Batches as int64 tensors (rows, block_size + 1), in pinned memory if asked.

    This endless iterator is a context manager: leaving it, or `close()`, ends the thread. `next()`
    raises an exception of the thread. `wait_seconds` is how long the last `next()` waited for its
    batch: near zero when the device is the slower one.
    """

    def __init__(
        self, batch_of: Callable[[int], np.ndarray], start_step: int, *, pin_memory: bool
    ) -> None:
        self.wait_seconds = 0.0
        self._queue: queue.Queue[Tensor | BaseException] = queue.Queue(maxsize=AHEAD)
        self._closed = threading.Event()
        self._failure: BaseException | None = None
        device = _current_cuda_device() if pin_memory else None
        self._thread = threading.Thread(
            target=self._run, args=(batch_of, start_step, device), name="data", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Prefetcher:
        return self

    def __next__(self) -> Tensor:
        if self._failure is not None:
            raise self._failure
        if self._closed.is_set():
            raise StopIteration
        start = time.perf_counter()
        item = self._queue.get()
        self.wait_seconds = time.perf_counter() - start
        if isinstance(item, BaseException):
            self._failure = item
            raise item
        return item

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread; may be called twice."""
        self._closed.set()
        self._thread.join()

    def _run(
        self, batch_of: Callable[[int], np.ndarray], step: int, cuda_device: int | None
    ) -> None:
        try:
            if cuda_device is not None:
                _use_cuda_device(cuda_device)
            while not self._closed.is_set():
                self._put(as_tensor(batch_of(step), pin_memory=cuda_device is not None))
                step += 1
        except BaseException as error:
            # any exception must reach next(), which would otherwise wait forever
            self._put(error)

    def _put(self, item: Tensor | BaseException) -> None:
        while not self._closed.is_set():
            try:
                return self._queue.put(item, timeout=0.05)
            except queue.Full:
                continue


def as_tensor(tokens: np.ndarray, *, pin_memory: bool = False) -> Tensor:
    """uint16 tokens as an int64 tensor of the same shape, the index type of torch's embeddings."""
    import torch  # here, so that `python -m data` starts without it

    tensor = torch.from_numpy(tokens.astype(np.int64))
    return tensor.pin_memory() if pin_memory else tensor


def _current_cuda_device() -> int:
    import torch

    if not torch.cuda.is_available():
        raise DataError("pin_memory needs CUDA, and this process has none; leave it False")
    return torch.cuda.current_device()


def _use_cuda_device(device: int) -> None:
    # A new thread starts on device 0: without this every rank would open a context there, 0.5 GB.
    import torch

    torch.cuda.set_device(device)
