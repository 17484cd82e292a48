"""The clock of the loop, and the line that each update leaves in the record and on the screen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from configs import Config, size
from launch.process import Process
from record import checkpoints, hardware, runlog, screen

Inside = Mapping[str, Any] | None  # what an update showed of every tensor


class Updates:
    """Times each update and reports it: on a CPU at its end, on a GPU when the next one waits.

    The loop waits for the device once in an update, before the weights change. A second wait after
    the change would leave the device without work while the host prepares the next update. So on a
    GPU the clock is the device's own: events in its queue, which are read at the next wait.
    """

    def __init__(
        self,
        process: Process,
        config: Config,
        log: runlog.Log,
        bar: screen.Screen,
        progress: checkpoints.Progress,
        dtype: str,
    ) -> None:
        self.process, self.log, self.bar, self.progress = process, log, bar, progress
        self.tokens = config.train.batch_tokens
        self.flops = self.tokens * size.flops_per_token(config.model) / process.world_size
        self.peak = hardware.peak_flops(process.device_name, dtype)
        self.waits_later = process.device.type == "cuda"
        self.marks: list[Any] = []
        self.unreported: tuple[int, Mapping[str, Any], Inside, list[Any]] | None = None

    def start(self) -> None:
        """The clock starts."""
        self.marks = []
        self.mark()

    def mark(self) -> None:
        """A moment of the update: its start, before and after the optimizer's step, its end."""
        if self.waits_later:
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(time.perf_counter())

    @contextmanager
    def optimizing(self) -> Iterator[None]:
        """Around the optimizer's step."""
        self.mark()
        with record_function("optimizer"):
            yield
        self.mark()

    def log_later(
        self, step: int, values: Mapping[str, Any], inside: Inside = None, *, now: bool = False
    ) -> None:
        """Take what the line of update `step` holds besides its times; on a CPU, report it now.

        values: numbers, or tensors of shape () that nobody changes. inside: as RunLog.log takes it.
        now: report it now on a GPU too, since no update follows.
        """
        self.unreported = step, values, inside, self.marks
        if now or not self.waits_later:
            self.report()

    def report(self) -> None:
        """Log and show the update that is not reported yet, if there is one.

        It waits for the end of that update: call it where the device has passed it, or where the
        lines of all updates must be on disk.
        """
        if self.unreported is None:
            return
        step, values, inside, marks = self.unreported
        self.unreported = None
        seconds, optimizer_seconds = _between(marks[0], marks[3]), _between(marks[1], marks[2])
        self.progress.train_seconds += seconds
        values = {
            **self._read(values),
            "time/train_seconds": self.progress.train_seconds,
            "time/step_ms": 1e3 * seconds,
            "time/optimizer_ms": 1e3 * optimizer_seconds,
            "tokens": (step + 1) * self.tokens,
            "tokens_per_second": self.tokens / seconds,
            "mfu": self.flops / seconds / self.peak if self.peak else None,
            "memory/peak_gib": hardware.peak_memory_gib(self.process.device),
        }
        with record_function("logging"):
            self.log.log(step, values, inside)
            self.bar.stepped(step, values)

    def _read(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` with numbers in place of tensors, which come from the device in one transfer."""
        found = {name: x for name, x in values.items() if isinstance(x, Tensor)}
        if not found:
            return dict(values)
        place = self.process.device
        read = torch.stack([x.to(place, torch.float64) for x in found.values()]).tolist()
        return {**values, **dict(zip(found, read, strict=True))}


def _between(start: Any, end: Any) -> float:
    """Seconds from one mark to another; waits until the device has passed both."""
    if isinstance(start, float):
        return float(end - start)
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3
