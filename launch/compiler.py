"""Whether torch.compile can work on this machine; without this check its failure is a traceback."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from configs import ConfigError


def compiles(device: str, setting: str | bool) -> bool:
    """Whether `setting`, that of train.compile, compiles on this kind of device."""
    return device == "cuda" if setting == "auto" else bool(setting)


def refuse_without(device: str, setting: str | bool) -> None:
    """Refuse `setting`, that of train.compile, on a kind of device where it would fail.

    Raises:
        ConfigError: it compiles, and what that takes is missing; one line.
    """
    if compiles(device, setting) and (what := _missing(device)):
        raise ConfigError(
            f"train.compile = {str(setting).lower()} compiles on this {device} device, which takes"
            f" {what}; install it, or give --train.compile false"
        )


def _missing(device: str) -> str | None:
    """What torch.compile needs and does not find: triton on a GPU, a compiler, Python's headers."""
    if device == "cuda" and find_spec("triton") is None:
        return "the package triton"
    if device == "cuda":  # triton compiles a launcher in C for each kernel
        names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    else:
        names = [os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")]
    if not any(map(shutil.which, names)):
        return f"a compiler, and there is no {' or '.join(names)}"
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        return f"Python's headers, and there is no {headers}/Python.h (package python3-dev)"
    return None
