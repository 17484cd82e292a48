"""What a run ran on: peak FLOP/s of known devices (for mfu), and the environment of a launch."""

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import resource
import socket
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple


class Peak(NamedTuple):
    """Dense peak of one device in TFLOP/s; None where the hardware has no such units.

    half: tensor cores on bfloat16 inputs with float32 accumulation (float16 is equal wherever
    both exist). tf32: tensor cores on float32 inputs rounded to TF32. fp32: ordinary cores.
    """

    half: float | None
    tf32: float | None
    fp32: float
    bfloat16: bool = True  # False: `half` is float16 only


# Names are those of torch.cuda.get_device_name without "NVIDIA", "Tesla" and "GeForce". A pattern
# matches the whole name: an unknown variant (a laptop's chip, a MIG slice) gets no peak rather than
# a wrong one. Most datasheets print figures with 2:4 sparsity; the dense figures here are half.
PEAKS: tuple[tuple[str, Peak], ...] = (
    # "NVIDIA A100 Tensor Core GPU" datasheet, nvidia.com/en-us/data-center/a100
    (r"A[18]00-(SXM4|PCIE)-[48]0GB|A[18]00 80GB PCIe", Peak(312, 156, 19.5)),
    # "NVIDIA A30 Tensor Core GPU" datasheet, nvidia.com/en-us/data-center/products/a30-gpu
    (r"A30", Peak(165, 82, 10.3)),
    # "NVIDIA A40" datasheet: BF16 149.7 | 299.4 sparse, TF32 74.8, FP32 37.4
    (r"A40", Peak(149.7, 74.8, 37.4)),
    # "NVIDIA A10 Tensor Core GPU" datasheet, nvidia.com/en-us/data-center/products/a10-gpu
    (r"A10", Peak(125, 62.5, 31.2)),
    # "NVIDIA A10G" datasheet of AWS G5: BF16 70 | 140 sparse, half the A10's tensor rate
    (r"A10G", Peak(70, 35, 35)),
    # "NVIDIA H100 Tensor Core GPU Architecture" whitepaper v1.04, tables 1 and 2 (dense)
    (r"H[18]00 80GB HBM3|GH200 (480GB|144G HBM3e)", Peak(989.4, 494.7, 66.9)),
    (r"H[18]00 PCIe", Peak(756, 378, 51.2)),
    # "NVIDIA H100 NVL" datasheet: BF16 1671 and TF32 835 with sparsity, FP32 60
    (r"H[12]00 NVL", Peak(835.5, 417.5, 60)),
    # "NVIDIA H200 Tensor Core GPU" datasheet: the same die and clocks as H100 SXM
    (r"H200", Peak(989.4, 494.7, 66.9)),
    # "NVIDIA H20" datasheet: BF16 148, TF32 74, FP32 44
    (r"H20", Peak(148, 74, 44)),
    # "NVIDIA HGX B200" in the Blackwell datasheet: BF16 4500 and TF32 2200 sparse, FP32 75
    (r"B200", Peak(2250, 1100, 75)),
    # "NVIDIA GB200 NVL72" in the same datasheet: BF16 5000 and TF32 2500 sparse, FP32 80
    (r"GB200", Peak(2500, 1250, 80)),
    # "NVIDIA L4 Tensor Core GPU" datasheet: BF16 242 and TF32 120 sparse, FP32 30.3
    (r"L4", Peak(121, 60, 30.3)),
    # "NVIDIA L40" datasheet: BF16 181.05, TF32 90.5, FP32 90.5
    (r"L40", Peak(181.05, 90.5, 90.5)),
    # "NVIDIA L40S" datasheet: BF16 362.05, TF32 183, FP32 91.6
    (r"L40S", Peak(362.05, 183, 91.6)),
    # "NVIDIA V100" and "V100S" datasheets: tensor cores of Volta take float16 only
    (r"V100-SXM[23]-.*", Peak(125, None, 15.7, bfloat16=False)),
    (r"V100-PCIE-.*", Peak(112, None, 14, bfloat16=False)),
    (r"V100S-PCIE-.*", Peak(130, None, 16.4, bfloat16=False)),
    # "NVIDIA T4" datasheet: float16 65, FP32 8.1
    (r"T4", Peak(65, None, 8.1, bfloat16=False)),
    # "NVIDIA Ampere GA102 GPU Architecture" whitepaper v2.1, tables 2, 3 and 8
    (r"RTX 3090", Peak(71, 35.6, 35.6)),
    (r"RTX 3090 Ti", Peak(80, 40, 40)),
    (r"RTX A6000", Peak(154.8, 77.4, 38.7)),
    # "NVIDIA Ada GPU Architecture" whitepaper v2.1, appendix A
    (r"RTX 4090", Peak(165.2, 82.6, 82.6)),
    (r"RTX 4080", Peak(97.5, 48.7, 48.7)),
    (r"RTX 4080 SUPER", Peak(104.4, 52.2, 52.2)),
    # "NVIDIA RTX 6000 Ada Generation" datasheet: half of 1457 FP8 sparse, twice
    (r"RTX 6000 Ada Generation", Peak(364.2, 182.1, 91.1)),
    # "NVIDIA RTX Blackwell GPU Architecture" whitepaper v1.1, appendices A and B
    (r"RTX 5090", Peak(209.5, 104.8, 104.8)),
    (r"RTX 5080", Peak(112.6, 56.3, 56.3)),
)
DTYPES = ("bfloat16", "float16", "float32")


def peak_flops(device_name: str, dtype: str) -> float | None:
    """Dense peak FLOP/s of one device, or None where it is not known (CPU, unknown names).

    device_name: torch.cuda.get_device_name(). dtype: of the matrix products' inputs: "bfloat16",
    "float16", or "float32", whose products a GPU with TF32 rounds to it.

    Raises:
        ValueError: another dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} has no peak FLOP/s; it is one of {', '.join(DTYPES)}")
    name = re.sub(r"\b(NVIDIA|Tesla|GeForce)\b", "", device_name).strip()
    name = re.sub(r" +", " ", name)
    for pattern, peak in PEAKS:
        if re.fullmatch(pattern, name):
            return _tera(peak, dtype)
    return None


def _tera(peak: Peak, dtype: str) -> float | None:
    """The entry of one row, in FLOP/s."""
    value = {
        "bfloat16": peak.half if peak.bfloat16 else None,
        "float16": peak.half,
        "float32": peak.tf32 or peak.fp32,
    }[dtype]
    return None if value is None else value * 1e12


def environment() -> dict[str, Any]:
    """Where and with what this process runs; plain JSON values, units in the names."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        # torch's own string names the build, as 2.13.0+cpu; its metadata may not
        "versions": {n: version(n) for n in ("numpy", "wandb")} | {"torch": str(torch.__version__)},
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "devices_on_host": torch.cuda.device_count() if cuda else 0,
        "cpu": _cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # that torch's own code uses
        "cpus_usable": usable_cores(),
        "threads": torch.get_num_threads(),
        "git": git_state(ROOT),
        "code": code_hash(),
        "torchrun": {name: os.environ[name] for name in TORCHRUN if name in os.environ},
    }


def usable_cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


# By controllers in /proc/self/cgroup, of versions 2 and 1: where groups lie, limit and use.
_GROUPS = {
    "": ("/sys/fs/cgroup", "memory.max", "memory.current"),
    "memory": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}


def available_memory() -> float:
    """Bytes that can still be used: of this machine, and of this process's control groups.

    Infinite where the system does not say (not Linux).
    """
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    left = [1024 * int(found[1])] if found else []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers in _GROUPS:
            left += _left_in_groups(path, *_GROUPS[controllers])
    return min(left, default=math.inf)


def _left_in_groups(path: str, root: str, limit: str, used: str) -> list[int]:
    """Bytes left in a group and in those around it that have a limit.

    In a container the root is the container's own group, whatever its path.
    """
    left, folder = [], Path(root + path)
    for group in (folder, *folder.parents):
        with contextlib.suppress(OSError, ValueError):  # no such group here, or no limit ("max")
            most, taken = (int((group / name).read_text()) for name in (limit, used))
            files = re.findall(
                r"^(?:in)?active_file (\d+)", (group / "memory.stat").read_text(), re.M
            )
            left.append(most - taken + sum(map(int, files)))  # files are given up first
    return left


def peak_memory_gib(device: Any) -> float:
    """Largest so far: allocated on the GPU (torch.device), or resident of this process on a CPU.

    So far means since `reset_peak_memory`, or since the process began.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    with contextlib.suppress(OSError):  # Linux
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def reset_peak_memory(device: Any) -> None:
    """Let the peak begin anew at what is in use now; on a CPU under Linux only."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # man proc: resets the peak resident size


def multiplies_bfloat16() -> bool:
    """Whether this processor has a unit for matrices of bfloat16 (AMX).

    AVX-512's instructions for it are on an AMD EPYC no faster than those for float32.
    """
    import torch

    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


ROOT = Path(__file__).resolve().parent.parent
CODE = ("train_gpt2.py", "configs", "data", "launch", "optim", "record", "storage")
TORCHRUN = (
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "SLURM_JOB_ID",
    "SLURM_RESTART_COUNT",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)


def version(package: str) -> str | None:
    """Installed version; None when absent. Reads metadata, so nothing is imported."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def code_files() -> dict[str, str]:
    """{path in the project: 8 hex digits of its hash} of the code that trains."""
    files: dict[str, str] = {}
    for part in CODE:
        path = ROOT / part
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
            files[file.relative_to(ROOT).as_posix()] = digest
    return files


def code_hash() -> str:
    """8 hex digits: a hash of all the code that trains, in a git checkout or not."""
    return hashlib.sha256(json.dumps(code_files()).encode()).hexdigest()[:8]


GENERATION = {"family": "cpu family", "model": "model"}


def _cpu_model() -> str:
    """The processor's name on Linux, with its generation; the architecture elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.+)$", text, re.MULTILINE))
    if "model name" not in found:
        return platform.machine()
    generation = [f"{what} {found[key]}" for what, key in GENERATION.items() if key in found]
    return ", ".join([found["model name"], *generation])  # a cloud names all of them alike


def git_state(folder: Path) -> dict[str, Any] | None:
    """{"commit", "dirty"} of the checkout around `folder`; None outside a git tree.

    dirty: a tracked file differs from the commit, or there is a new file that git does not ignore.
    """
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain")
    return None if commit is None or changes is None else {"commit": commit, "dirty": changes != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    """One git command's output; None when it fails, is absent or takes over ten seconds."""
    try:
        done = subprocess.run(
            # no optional locks: a record must not disturb a commit in the same checkout
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
