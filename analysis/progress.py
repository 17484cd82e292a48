"""A progress bar that counts passes over the text; silent where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class Progress:
    """What is being done, and how many passes over the text it has taken."""

    def __init__(self, shown: tqdm[Any]) -> None:
        self.shown = shown

    def says(self, what: str) -> None:
        """Name what is done now."""
        self.shown.set_postfix_str(what)

    def passed(self) -> None:
        """Count a pass."""
        self.shown.update()


@contextmanager
def bar(name: str, total: int | None = None) -> Iterator[Progress]:
    """A bar for one piece of work, of `total` passes if that is known."""
    silent = not sys.stderr.isatty()
    with tqdm(total=total, desc=name, unit=" passes", disable=silent, leave=False) as shown:
        yield Progress(shown)
