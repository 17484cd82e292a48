"""What the figures depend on besides the code, and what this machine does without."""

from __future__ import annotations

import platform
import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any

import torch

from configs import ConfigError
from record.hardware import environment, version

OPTIONAL = {  # package: what is left out without it
    "tqdm": "a progress bar",
    "wandb": "the mirror of runs",
    "rich": "contests",
    "scipy": "reports",
    "statsmodels": "reports",
    "plotly": "reports",
    "jinja2": "reports",
    "pytest": "the tests marked gpu",
    "tiktoken": "FineWeb's tokens (these parts use Python's library and random tokens)",
    "datasets": "FineWeb's text",
}


def facts(device: str, tiny: bool) -> dict[str, Any]:
    """The machine, as plain values.

    Raises:
        ConfigError: there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        build = torch.version.cuda
        why = f"torch {torch.__version__} is built {f'for CUDA {build}' if build else 'without it'}"
        raise ConfigError(f"CUDA is not available ({why}); --device cpu --tiny tries the program")
    found = environment()
    cuda = device == "cuda"
    capability = torch.cuda.get_device_capability() if cuda else None
    missing = [f"{name} ({what})" for name, what in OPTIONAL.items() if version(name) is None]
    git = found["git"]
    return {
        "device": found["device"] if cuda else found["cpu"],
        "sizes": "tiny" if tiny else "full",
        "memory, GiB": torch.cuda.get_device_properties(0).total_memory / 2**30 if cuda else None,
        "compute capability": ".".join(map(str, capability)) if capability else None,
        "driver": _driver() if cuda else None,
        "CUDA of torch": found["cuda"],
        "torch": found["versions"]["torch"],
        "triton": version("triton"),
        "C compiler": next(filter(shutil.which, ("gcc", "cc", "clang")), None),
        "Python": platform.python_version(),
        "host's CPU": f"{found['cpu']}, {found['cpus_usable']} cores",
        "commit": f"{git['commit'][:12]}{', changed' if git['dirty'] else ''}" if git else None,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "without": ", ".join(missing) or "nothing",
    }


def _driver() -> str | None:
    """The driver's version as nvidia-smi has it, where there is one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split("\n")[0].strip() or None
