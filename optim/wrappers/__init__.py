"""What is wrapped around an optimizer of any kind: the table [optimizer.wrap]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.validation import ConfigError
from optim.core.base import Optimizer


def resolve_wrap(wrap: Mapping[str, Any]) -> dict[str, Any]:
    """`wrap` checked, with all defaults.

    Raises:
        ConfigError: an unknown wrapper; one line.
    """
    if wrap:
        raise ConfigError(f"unknown key 'optimizer.wrap.{next(iter(wrap))}'; there is no wrapper")
    return {}


def wrapped(optimizer: Optimizer, wrap: Mapping[str, Any]) -> Optimizer:
    """`optimizer` inside the wrappers that `wrap` names; itself if there are none."""
    resolve_wrap(wrap)
    return optimizer
