"""One line about each optimizer, read off its class, so that there is nothing to keep in step.

The citation comes from the docstring, defaults from the signature, hooks from the methods, presets
from their folder. State and traffic were counted over steps on a small matrix (`counted`).
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from optim import OPTIMIZERS, build_optimizer, optimizer_state_bytes
from optim.core.base import Optimizer
from optim.core.hyperparameters import schema

PRESETS = Path(__file__).parent.parent / "configs" / "optimizer"
_SIDE = 256  # of the matrix
# Bytes of state and of traffic, three digits, as a test counts them again: counting takes seconds.
# `python -m optim list` counts those of an optimizer that is not here.
COUNTED: dict[str, tuple[float, float]] = {
    "sgd": (0, 12),
    "adam": (8, 28),
    "adamw": (8, 28),
    "nadam": (8, 28),
    "radam": (8, 28),
    "adagrad": (4, 20),
    "rmsprop": (4, 20),
    "adafactor": (0.0313, 12.1),
    "nadamw": (8, 28),
    "adopt": (8, 28),
    "ademamix": (12, 36),
    "mars": (12, 36),
    "adam_mini": (4.02, 20),
    "cautious_adamw": (8, 28),
    "lion": (4, 20),
    "cautious_lion": (4, 20),
    "signum": (4, 20),
    "lamb": (8, 28),
    "lars": (4, 20),
    "sgd_sai": (4, 20),
    "sgd_sqrtn": (4, 20),
    "sophia_g": (8, 24),
    "prodigy": (16, 40),
    "schedule_free_adamw": (8, 28),
    "schedule_free_sgd": (4, 20),
    "muon": (4, 20),
    "normuon": (4.02, 20),
    "adamuon": (8, 28),
    "muonclip": (4, 20),
    "aurora": (4, 20),
    "muown": (4.06, 20.1),
    "scion": (4, 20),
    "soap": (24, 52),
    "soap_muon": (24, 52),
    "kl_soap": (24, 52.1),
    "psgd_kron": (12, 36),
    "shampoo": (24, 52),
    "galore": (6, 22),
    "apollo": (4, 20),
    "dion": (6, 24),
    "dion2": (4, 20),
}
_HOOKS = ("eval_mode", "curvature_due", "logits_due", "check_schedule", "diagnostics")


@dataclass(frozen=True)
class Row:
    """One optimizer. Bytes are per parameter of a hidden matrix in float32."""

    name: str
    paper: str  # authors, year, arXiv number where there is one
    state: float  # bytes kept
    traffic: float  # bytes read and written by a step, at the least
    hooks: str
    lr: float
    presets: tuple[str, ...]


def rows(names: Iterable[str] = tuple(OPTIMIZERS)) -> list[Row]:
    """One row for each of `names`."""
    found = presets()
    return [_row(name, found.get(name, ())) for name in names]


def presets() -> dict[str, tuple[str, ...]]:
    """Names of the preset files of each optimizer."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(PRESETS.glob("*.toml")):
        name = tomllib.loads(path.read_text())["optimizer"]["name"]
        found[name] = (*found.get(name, ()), path.stem)
    return found


def citation(text: str) -> str:
    """Authors, year and arXiv number from the Source section of a docstring."""
    found = re.search(r"^Source:\s*(.*?)(?:\n\s*\n|\n[A-Z]\w+:|\Z)", text, re.DOTALL | re.MULTILINE)
    source = " ".join(found[1].split()).split(";")[0] if found else ""
    authors, quote, rest = source.partition('"')
    where = re.search(r"arXiv:(\d\d)\d\d\.\d+|\b(?:19|20)\d\d\b", rest.partition('"')[2])
    if not quote:  # no paper of its own
        where = re.search(r"arXiv:\d+\.\d+", source)
        return f"after {where[0]}" if where else source.rstrip(".")
    if not where:
        return authors.rstrip(", ")
    year = f"20{where[1]}, {where[0]}" if where[1] else where[0]
    return f"{authors.rstrip(', ')} {year}"


def _row(name: str, files: tuple[str, ...]) -> Row:
    cls = OPTIMIZERS[name]
    own = [hook for hook in _HOOKS if getattr(cls, hook) is not getattr(Optimizer, hook)]
    state, traffic = COUNTED.get(name) or counted(name)
    lr = schema(cls)["lr"][1]
    return Row(name, citation(inspect.getdoc(cls) or ""), state, traffic, ", ".join(own), lr, files)


def counted(name: str) -> tuple[float, float]:
    """Bytes of state and of traffic per parameter.

    A step reads the parameter, its gradient and the state. It writes the parameter and those
    tensors of the state that it changes.
    """
    generator = torch.Generator().manual_seed(1)
    p = torch.nn.Parameter(0.02 * torch.randn(_SIDE, _SIDE, generator=generator))
    group = {"params": [p], "names": ["h.0.mlp.c_fc.weight"], "role": "hidden"}
    optimizer = build_optimizer(name, [group], total_steps=100)
    before: dict[str, torch.Tensor] = {}
    for _ in range(3):
        before = {key: x.clone() for key, x in _tensors(optimizer.state[p]).items()}
        p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    after = _tensors(optimizer.state[p])
    written = sum(
        x.nbytes for key, x in after.items() if key not in before or not x.equal(before[key])
    )
    state = optimizer_state_bytes(optimizer)
    return state / p.numel(), (3 * p.nbytes + state + written) / p.numel()


def _tensors(state: object, path: str = "") -> dict[str, torch.Tensor]:
    """Tensors of a parameter's state by where they are."""
    if isinstance(state, torch.Tensor):
        return {path: state}
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(state, dict):
        items = state.items()
    elif isinstance(state, list | tuple):
        items = enumerate(state)
    return {k: x for key, value in items for k, x in _tensors(value, f"{path}/{key}").items()}
