"""Whether a run has its machine for itself: other runs, the load, and the state of its GPUs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

PROCESSES = Path("/proc")
TRAINER = "train_gpt2.py"
GPU_FACTS = {  # of nvidia-smi: as recorded
    "clocks.sm": "sm_clock_mhz",
    "clocks.max.sm": "max_sm_clock_mhz",
    "temperature.gpu": "temperature_celsius",
}


def machine_now() -> dict[str, Any]:
    """As of now, in some milliseconds; plain JSON values, None where the system does not say.

    other_runs: trainings on this machine besides this one, as far as this process sees them.
    load_average: processes that run or wait for a core, mean over the last minute. gpus: one entry
    for each that this process may use.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"other_runs": other_runs(), "load_average": load, "gpus": _gpus()}


def other_runs() -> int | None:
    """Trainings besides that of this process; None where the system does not list processes.

    All ranks of a run have the same command line, and are one.
    """
    if not PROCESSES.is_dir():
        return None
    runs = {_run(entry) for entry in PROCESSES.iterdir() if entry.name.isdigit()}
    return len(runs - {None, _run(PROCESSES / "self")})


def _run(process: Path) -> tuple[Any, ...] | None:
    """Owner, folder and arguments of a process of the trainer; None for another program."""
    try:
        program, *words = (process / "cmdline").read_text(errors="replace").rstrip("\0").split("\0")
        if not Path(program).name.startswith("python"):
            return None
        script = next(i for i, word in enumerate(words) if not word.startswith("-"))
        if Path(words[script]).name != TRAINER:
            return None
        owner = process.stat().st_uid
    except (OSError, StopIteration):  # it has ended, or is python without a script
        return None
    try:
        folder = str((process / "cwd").readlink())
    except OSError:  # of another user
        folder = ""
    return owner, folder, *words[script + 1 :]


def _gpus() -> list[dict[str, float | None]]:
    """Clock and temperature of each GPU that this process may use, as nvidia-smi has them."""
    import torch

    if not torch.cuda.is_available():
        return []
    mine = [_uuid(i) for i in range(torch.cuda.device_count())]
    query = f"--query-gpu=uuid,{','.join(GPU_FACTS)}"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [_facts(numbers) for uuid, *numbers in rows if uuid in mine]


def _uuid(index: int) -> str:
    """As nvidia-smi prints it."""
    import torch

    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"


def _facts(numbers: list[str]) -> dict[str, float | None]:
    """One row; None for what the GPU does not tell ("[N/A]")."""
    found: dict[str, float | None] = {}
    for name, number in zip(GPU_FACTS.values(), numbers, strict=True):
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = None
    return found
