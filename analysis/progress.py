"""A progress bar that counts passes over the text; silent where stderr is no terminal."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def bar(name: str, total: int | None = None) -> tqdm[Any]:
    """A bar for one piece of work, of `total` passes if that is known."""
    return tqdm(total=total, desc=name, unit=" passes", disable=None, leave=False)
