"""TensorBoard as a second mirror of a run's record: log.tensorboard = true.

    tensorboard --logdir runs        # the curves of all runs that wrote them

Event files go to <run>/tensorboard. TensorBoard shows a resumed run as one curve: what an earlier
launch wrote after the checkpoint is purged from it, as it is cut from metrics.jsonl.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class Curves:
    """Writes each line of metrics.jsonl as scalars; rank 0 only.

    directory: the run's. past: the lines that metrics.jsonl keeps of earlier launches.

    Raises:
        ImportError: the package tensorboard is not installed.
        OSError: the folder cannot be written.
    """

    def __init__(self, directory: Path, past: Sequence[Mapping[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if not past:
            shutil.rmtree(directory / FOLDER, ignore_errors=True)  # of an attempt that began anew
        first = 1 + max((line["step"] for line in past if "train/loss" in line), default=-1)
        folder = str(directory / FOLDER)
        self.writer: Any = SummaryWriter(folder, purge_step=first, flush_secs=10)
        for line in past:  # purged, since it has the step at which this launch goes on
            if line["step"] >= first:
                self.log(line["step"], {k: v for k, v in line.items() if k != "step"})

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Queue one line; what is not a number is left out."""
        with self._or_say_so():
            for name, value in values.items():
                if self.writer and isinstance(value, int | float):
                    self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is queued."""
        with self._or_say_so():
            if self.writer:
                self.writer.close()

    @contextlib.contextmanager
    def _or_say_so(self) -> Iterator[None]:
        """A mirror may fail, on a full disk say: one line, and training goes on without it."""
        try:
            yield
        except Exception as error:
            self.writer = None
            print(f"TensorBoard: no more curves of this run ({error!r})", flush=True)
