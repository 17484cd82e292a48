"""A thread that writes what training would have to wait for: copies, so that training goes on."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class Writer:
    """Writes one thing at a time; its copies of tensors lie in host memory that is used again."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "writer")  # which starts with the first `write`
        self.task: Future[object] | None = None
        self.buffers: list[Tensor] = []

    @property
    def failure(self) -> BaseException | None:
        """Why the last write failed; None if it did not, and as long as it is under way."""
        return self.task.exception() if self.task and self.task.done() else None

    def write(self, value: T, work: Callable[[T], object]) -> None:
        """Copy `value`, and do `work` with the copy on the thread.

        value: tensors and plain values, in dicts, lists, tuples and dataclasses. Later changes do
        not reach the copy. Before it is made, the last write has ended.

        Raises:
            BaseException: what the last write has raised.
        """
        self.wait()
        self.task = self.thread.submit(work, _Copies(self.buffers).of(value))

    def wait(self) -> None:
        """Wait until the last write has ended.

        Raises:
            BaseException: what it has raised.
        """
        if self.task:
            self.task.result()

    def close(self) -> None:
        """Wait, also for a write that fails, and end the thread."""
        self.thread.shutdown()


class _Copies:
    """Copies in host memory. Tensors that share memory share it there, as in torch.save."""

    def __init__(self, buffers: list[Tensor]) -> None:
        self.buffers = buffers  # one for each storage, in the order in which they are met
        self.made: dict[Any, Tensor] = {}

    def of(self, value: Any) -> Any:
        """`value` as it is now."""
        import torch

        copied = self._copied(value)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # copies from a GPU are under way until then
        return copied

    def _copied(self, value: Any) -> Any:
        import torch

        if type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout == torch.strided:
            return self._tensor(value.detach())
        if isinstance(value, dict):
            return {k: self._copied(v) for k, v in value.items()}
        if type(value) in (list, tuple):
            return type(value)(map(self._copied, value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {k: self._copied(v) for k, v in vars(value).items()}
            return dataclasses.replace(value, **fields)
        return copy.deepcopy(value)

    def _tensor(self, x: Tensor) -> Tensor:
        import torch

        storage = x.untyped_storage()
        key = x.device, storage.data_ptr(), storage.nbytes()
        if key not in self.made:
            source = torch.empty(0, dtype=torch.uint8, device=x.device).set_(storage)
            buffer = self._buffer(source)
            self.made[key] = buffer.copy_(source, non_blocking=True)
        place = x.storage_offset(), x.shape, x.stride()
        return torch.empty(0, dtype=x.dtype).set_(self.made[key].untyped_storage(), *place)

    def _buffer(self, source: Tensor) -> Tensor:
        """Memory for as many bytes: that of the last copy if it fits; pinned for those of a GPU."""
        import torch

        index, pinned = len(self.made), source.is_cuda
        old = self.buffers[index] if index < len(self.buffers) else None
        if old is not None and len(old) == len(source) and (old.is_pinned() or not pinned):
            return old
        new = torch.empty_like(source, device="cpu", pin_memory=pinned)
        self.buffers[index : index + 1] = [new]
        return new
