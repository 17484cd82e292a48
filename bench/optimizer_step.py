"""How long the step of each optimizer takes, and how near it is to the limit of the memory.

    python -m bench.optimizer_step [NAME...] [--size 124M] [--steps 100] [--packages] [--json FILE]

The parameters of a GPT-2 with gradients in place, no model and no backward pass; each optimizer
with its preset. Steps are timed in turn with steps of torch's fused AdamW on the same parameters,
so that another program on the machine slows both: their ratio is the number to believe. Every
timing ends with a synchronisation. Compilation and the first step are reported apart.

The floor is the traffic that no implementation can avoid (gradient and state read, parameter and
state written, once each: 12 bytes a parameter and twice the state, less what is only read) at the
machine's bandwidth: that of a copy, a product in place or x <- x + a * b, whichever is highest.
These probes are timed in turn with the steps as well, since the bandwidth of a machine that others
use changes by half within minutes: the median step is compared with the median probe, the fastest
with the fastest. "own" is the floor of a method that needs a sum over a tensor before it can move
it, and so has to read some of it twice. Methods whose work is not memory traffic (Muon, SOAP) have
the floor too, for what it says about them.

On a machine that others use too, --cpu-time with OMP_NUM_THREADS=1 measures the seconds that the
process was at work instead of those that have passed; only its ratios mean something.

--packages measures the published package beside ours, by the call that its README shows. Figures
over several sizes: `python -m bench.optimizer_figures`, from the files that --json writes.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import math
import os
import platform
import statistics
import sys
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import train_gpt2
from configs import Model
from optim import OPTIMIZERS, build_optimizer, optimizer_state_bytes

Clock = Callable[[], float]
SIZES = {  # layers, heads, width
    "10M": (6, 4, 128),
    "30M": (6, 6, 384),
    "124M": (12, 12, 768),
    "350M": (24, 16, 1024),
    "774M": (36, 20, 1280),
    "1558M": (48, 25, 1600),
}
PRESETS = Path(__file__).parents[1] / "configs" / "optimizer"
LOW_RANK = {"rank": 256, "update_proj_gap": 200, "scale": 1.0, "projection_type": "std"}
RANDOM = {"rank": 192, "projection_type": "random"}
SHAMPOO = {  # as our preset, with grafting to RMSProp's step (3)
    "block_size": 8192,
    "graft_type": 3,
    "preconditioning_compute_steps": 10,
    "start_preconditioning_step": 1,
}
PACKAGES: dict[str, tuple[str, dict[str, Any]]] = {  # by our name: class, arguments
    "adamw": ("torch.optim.AdamW", {}),
    "lion": ("lion_pytorch.Lion", {}),
    "sgd_sai": ("sgd_sai.SGD_sai", {}),
    "adam_mini": ("adam_mini.Adam_mini", {"named": True, "verbose": False}),
    "adopt": ("pytorch_optimizer.ADOPT", {}),
    "ademamix": ("pytorch_optimizer.AdEMAMix", {}),
    "mars": ("pytorch_optimizer.MARS", {}),
    "lamb": ("pytorch_optimizer.Lamb", {}),
    "lars": ("pytorch_optimizer.LARS", {}),
    "signum": ("pytorch_optimizer.SignSGD", {}),
    "prodigy": ("prodigyopt.Prodigy", {}),
    "schedule_free_adamw": ("schedulefree.AdamWScheduleFree", {}),
    "schedule_free_sgd": ("schedulefree.SGDScheduleFree", {}),
    "soap": ("pytorch_optimizer.SOAP", {}),
    "shampoo": ("pytorch_optimizer.ScalableShampoo", SHAMPOO),
    "psgd_kron": ("pytorch_optimizer.Kron", {}),
    "cautious_lion": ("pytorch_optimizer.Lion", {"cautious": True}),
    "muon": ("pytorch_optimizer.Muon", {"hidden": {"use_muon": True}}),
    "normuon": ("pytorch_optimizer.NorMuon", {"hidden": {"use_muon": True}}),
    "adamuon": ("pytorch_optimizer.AdaMuon", {"hidden": {"use_muon": True}}),
    "muonclip": ("pytorch_optimizer.MuonClip", {"hidden": {"use_muon": True}}),
    "galore": ("pytorch_optimizer.GaLore", {"hidden": LOW_RANK}),
    "apollo": ("pytorch_optimizer.APOLLO", {"hidden": LOW_RANK | RANDOM}),
}  # sophia_g has none: pytorch_optimizer.SophiaH is Hutchinson's estimate, another method
READ_ONLY = {"prodigy": "p0", "sophia_g": "hessian"}  # state that a step does not write
SECOND_PASS = {  # bytes per parameter read or written again after a sum over the tensor
    "adam_mini": 4,  # g
    "cautious_adamw": 8,  # m, g
    "cautious_lion": 8,  # m, g
    "lamb": 12,  # p, m, v
    "lars": 8,  # p, g
    "mars": 8,  # g, last g
    "prodigy": 12,  # p, m, v
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parser().parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_flush_denormal(True)
    groups = parameters(options.size, device)
    clock = time.process_time if options.cpu_time else time.perf_counter
    probes = Probes(device, clock)
    rows: list[dict[str, Any]] = []
    print(heading())
    for name in options.names or list(OPTIMIZERS):
        kinds = ["ours", "package"] if options.packages and name in PACKAGES else ["ours"]
        for kind in kinds:
            try:
                row = measured(name, kind, options, groups, device, probes)
            except Exception as error:  # one that fails, or does not fit, is a row too
                reason = f"{type(error).__name__}: {error}".split("\n")[0]
                print(f"{name:<20} {kind:<8} {reason}", flush=True)
                rows.append({"name": name, "kind": kind, "error": reason})
                continue
            rows.append(row)
            print(line(row), flush=True)
    record = {"command": " ".join(sys.argv), "machine": machine(device), "size": options.size}
    record["clock"] = "seconds of the process" if options.cpu_time else "wall"
    record["rows"] = rows
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: the whole table")
    parser.add_argument("--size", choices=SIZES, default="124M", help="of the GPT-2")
    parser.add_argument("--steps", type=int, default=100, help="timed, of each optimizer")
    parser.add_argument("--warm-up", type=int, default=20, help="steps before them")
    parser.add_argument("--plain", action="store_true", help="ours without compiling")
    parser.add_argument("--cpu-time", action="store_true", help="of the process; see above")
    parser.add_argument("--packages", action="store_true", help="published packages beside ours")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers, every step's too")
    return parser


def parameters(size: str, device: torch.device) -> list[dict[str, Any]]:
    """The groups of a GPT-2, with weights and gradients of the usual sizes."""
    layers, heads, width = SIZES[size]
    shape = Model(vocab_size=50257, block_size=1024, n_layer=layers, n_head=heads, n_embd=width)
    with torch.device("meta"):
        model = train_gpt2.GPT(shape)
    model = model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(1)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.02, generator=generator)
        p.grad = torch.empty_like(p).normal_(0, 1e-3, generator=generator)
    return model.parameter_groups()


def tensors(groups: list[dict[str, Any]]) -> list[torch.Tensor]:
    """The parameters of all groups."""
    return [p for group in groups for p in group["params"]]


# ---------------------------------------------------------------- one optimizer


def measured(
    name: str,
    kind: str,
    options: argparse.Namespace,
    groups: list[dict[str, Any]],
    device: torch.device,
    probes: Probes,
) -> dict[str, Any]:
    """Times in seconds and sizes in bytes of one optimizer."""
    clock = probes.clock
    gc.collect()
    params = tensors(groups)
    count = sum(p.numel() for p in params)
    grads = [p.grad for p in params]
    optimizer = ours(name, groups, options) if kind == "ours" else packaged(name, groups)
    reference = build_optimizer("adamw", groups, lr=1e-9)
    optimizer.check_gradients = reference.check_gradients = False  # as in the training loop
    with warnings.catch_warnings(record=True) as notices:
        compiling = clocked(getattr(optimizer, "warm_up", lambda: None), device)
        first = clocked(optimizer.step, device)
    reference.step()
    for _ in range(options.warm_up):
        optimizer.step()
        reference.step()
    steps: list[float] = []
    references: list[float] = []
    bandwidth: dict[str, list[float]] = {}
    both = [(reference, references), (optimizer, steps)]
    for _ in range(options.steps):
        both.reverse()
        for one, seconds in both:
            seconds.append(clocked(one.step, device, clock))
        for probe, rate in probes.take().items():
            bandwidth.setdefault(probe, []).append(rate)
    zero = []
    for _ in range(20):
        zero.append(clocked(lambda: optimizer.zero_grad(set_to_none=True), device, clock))
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad
    state = optimizer_state_bytes(optimizer)
    return {
        "name": name,
        "kind": kind,
        "parameters": count,
        "state_bytes": state,
        "traffic_bytes": 12 * count + 2 * state - only_read(optimizer, READ_ONLY.get(name, "")),
        "second_pass_bytes": SECOND_PASS.get(name, 0) * count,
        "compile_seconds": compiling,
        "first_step_seconds": first,
        "step_seconds": steps,
        "adamw_step_seconds": references,
        "bandwidth_bytes_per_second": bandwidth,
        "zero_grad_seconds": zero,
        "kernels": kernels(optimizer.step) if device.type == "cuda" else None,
        "notices": sorted({str(n.message) for n in notices if n.category is RuntimeWarning}),
    }


def only_read(optimizer: torch.optim.Optimizer, key: str) -> int:
    """Bytes of the state of this name."""
    return sum(state[key].nbytes for state in optimizer.state.values() if key in state)


def preset(name: str, n_head: int) -> dict[str, Any]:
    """The keys of an optimizer's preset, "name" too, for a model with so many heads."""
    table: dict[str, Any] = tomllib.loads((PRESETS / f"{name}.toml").read_text())["optimizer"]
    return table | ({"n_head": n_head} if "n_head" in table else {})


def ours(name: str, groups: list[dict[str, Any]], options: argparse.Namespace) -> Any:
    """Ours by its preset, with a millionth of its lr, so that the weights stay what they are."""
    table = preset(name, SIZES[options.size][1])
    table["lr"] *= 1e-6
    optimizer = build_optimizer(table.pop("name"), groups, total_steps=1000, **table)
    if options.plain:
        optimizer.compile = False  # type: ignore[attr-defined]
    return optimizer


def packaged(name: str, groups: list[dict[str, Any]]) -> Any:
    """The published class of the same method, with its own defaults."""
    path, arguments = PACKAGES[name]
    module, _, cls = path.rpartition(".")
    arguments = dict(arguments)
    given: Any = tensors(groups)
    if hidden := arguments.pop("hidden", None):  # as these packages ask for
        rest = [g for g in groups if g["role"] != "hidden"]
        given = [{"params": g["params"], **hidden} for g in groups if g["role"] == "hidden"]
        flag = {"use_muon": False} if "use_muon" in hidden else {}
        given.append({"params": tensors(rest), **flag})
    if arguments.pop("named", False):
        names = [name for group in groups for name in group["names"]]
        # Its code for the MLP fails on vectors, which it knows by "bias" alone.
        given = list(zip(names, given, strict=True))
    optimizer = getattr(importlib.import_module(module), cls)(given, lr=1e-9, **arguments)
    if hasattr(optimizer, "train"):  # schedule-free
        optimizer.train()
    return optimizer


def clocked(
    call: Callable[[], Any], device: torch.device, clock: Clock = time.perf_counter
) -> float:
    """Seconds of `call`, from an idle device to an idle device."""
    synchronize(device)
    began = clock()
    call()
    synchronize(device)
    return clock() - began


def synchronize(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def kernels(call: Callable[[], Any]) -> int:
    """Kernels that one call launches on a GPU."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        torch.cuda.synchronize()
    device = torch.autograd.DeviceType.CUDA
    return sum(event.device_type == device for event in profile.events())


# ---------------------------------------------------------------- the floor


class Probes:
    """Bytes per second that plain operations reach."""

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.clock = clock
        elements = 1 << 25  # 128 MiB a tensor, above any cache
        self.device = device
        self.x, self.a, self.b = (torch.ones(elements, device=device) for _ in range(3))

    def take(self) -> dict[str, float]:
        """Each once, by name."""
        return {
            name: 4 * streams * self.x.numel() / clocked(call, self.device, self.clock)
            for name, streams, call in self._calls()
        }

    def _calls(self) -> Iterator[tuple[str, int, Callable[[], Any]]]:
        yield "copy", 2, lambda: self.x.copy_(self.a)
        yield "product in place", 2, lambda: self.x.mul_(1.0)
        yield "x + a * b", 4, lambda: self.x.addcmul_(self.a, self.b, value=0.0)


# ---------------------------------------------------------------- the table


def heading() -> str:
    """Names of the columns: milliseconds, except for the last two, which are seconds."""
    return (
        f"{'optimizer':<20} {'':<8}{'median':>9}{'p99':>9}{'best':>9}{'/ AdamW':>9}{'GB/s':>7}"
        f"{'/ floor':>9}{'/ own':>8}{'best/own':>9}{'B/param':>9}{'zero_grad':>11}{'compile':>9}"
        f"{'first':>9}"
    )


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    figures = summary(row)
    return (
        f"{row['name']:<20} {row['kind']:<8}{figures['median']:9.1f}{figures['p99']:9.1f}"
        f"{figures['best']:9.1f}{figures['to_adamw']:9.2f}{figures['gigabytes']:7.1f}"
        f"{figures['to_floor']:9.2f}{figures['to_own']:8.2f}{figures['best_to_own']:9.2f}"
        f"{row['state_bytes'] / row['parameters']:9.3f}"
        f"{1e3 * statistics.median(row['zero_grad_seconds']):11.2f}"
        f"{row['compile_seconds']:9.1f}{row['first_step_seconds']:9.2f}"
        f"{'' if row['kernels'] is None else '  kernels: ' + str(row['kernels'])}"
        f"{'  (not compiled)' if row['notices'] else ''}"
    )


def summary(row: dict[str, Any]) -> dict[str, float]:
    """Milliseconds and ratios of a row."""
    steps = sorted(row["step_seconds"])
    median, best = statistics.median(steps), steps[0]
    rates = row["bandwidth_bytes_per_second"].values()
    usual, highest = max(map(statistics.median, rates)), max(map(max, rates))
    own = row["traffic_bytes"] + row["second_pass_bytes"]
    return {
        "median": 1e3 * median,
        "p99": 1e3 * steps[math.ceil(0.99 * len(steps)) - 1],
        "best": 1e3 * best,
        "to_adamw": median / statistics.median(row["adamw_step_seconds"]),
        "gigabytes": row["traffic_bytes"] / median / 1e9,
        "to_floor": median * usual / row["traffic_bytes"],
        "to_own": median * usual / own,
        "best_to_own": best * highest / own,
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    sys.exit(main())
