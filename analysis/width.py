"""`python -m analysis width`: the coordinate check, whether activations keep their size with width.

The same few updates, on the same text, at several widths, in the standard parametrization and in
muP: mean |activation| after them, and how far it has moved. Under muP neither should grow or
vanish with the width, in any layer (Yang et al., arXiv:2203.03466, appendix D.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import optim
import optim.by_role
from analysis import drawing
from analysis.batch import first_sequences
from analysis.progress import bar
from analysis.trained import device_named
from configs import Config, ConfigError, Model
from configs.validation import validate
from train_gpt2 import GPT


@dataclass(frozen=True)
class Settings:
    """widths: at least two. steps: updates. seeds: of initial weights, averaged over."""

    widths: tuple[int, ...]
    steps: int
    seeds: int
    tokens: int
    out: Path
    device: str


@dataclass(frozen=True)
class Measured:
    """Means over text, elements and seeds, at one place of a model."""

    parametrization: str
    place: str
    width: int
    size: float  # mean |activation| after the updates
    change: float  # mean |activation - the same before the updates|


def check(config: Config, settings: Settings) -> None:
    """Measure a resolved configuration at all widths; print a table, draw it and write it.

    Raises:
        ConfigError: it has `init`, a width does not fit, or muP has no rule for the optimizer;
            before anything is measured, one line.
        DataError: the data are gone or damaged.
        OSError: a file cannot be written.
    """
    if config.init:
        raise ConfigError("init: weights of one width fit no other; leave it out")
    models = list(_at_widths(config, settings.widths))
    rows = first_sequences(config, "train", settings.tokens).rows
    measured = []
    with bar("width", total=len(models) * settings.seeds) as progress:
        for parametrization, at in models:
            measured += measure(at, parametrization, rows, settings, progress.update)
    print(_said(config, rows, settings))
    print("\n".join(lines(measured)))
    title = f"{config.optimizer.name}, {settings.steps} updates at lr {_rate(config):g}"
    table = [vars(each) for each in measured]
    drawing.save(settings.out, drawing.widths(table, title), table)


def _at_widths(config: Config, widths: Sequence[int]) -> Iterator[tuple[str, Config]]:
    """Each parametrization with the configuration at each width, checked."""
    base = config.model.base_n_embd or min(widths)
    for parametrization, own in (("standard", None), ("mup", base)):
        for width in widths:
            table = {"n_embd": width, "parametrization": parametrization, "base_n_embd": own}
            model = validate(Model, config.model.model_dump() | table, "model")
            at = config.model_copy(update={"model": model})
            optim.by_role.check(at, 0)
            yield parametrization, at


def measure(
    config: Config,
    parametrization: str,
    rows: Tensor,
    settings: Settings,
    passed: Callable[[], object] = lambda: None,
) -> list[Measured]:
    """All places of one model, on `rows` (sequences, block_size + 1), which it also trains on."""
    rows, found = rows.to(device_named(settings.device)), []
    for seed in range(settings.seeds):
        model = GPT.initialised(config.model, config.seed + seed).to(rows.device)
        before = activations(model, rows[:, :-1])
        _train(model, config, rows, settings.steps)
        after = activations(model, rows[:, :-1])
        found.append({place: (_mean(x), _mean(x - before[place])) for place, x in after.items()})
        passed()
    means = {place: np.mean([each[place] for each in found], axis=0) for place in found[0]}
    width = config.model.n_embd
    return [
        Measured(parametrization, place, width, float(size), float(change))
        for place, (size, change) in means.items()
    ]


def _mean(x: Tensor) -> float:
    return float(x.abs().mean())


def _train(model: GPT, config: Config, rows: Tensor, steps: int) -> None:
    """`steps` updates on the same rows, with the base rates of the configuration."""
    optimizer = optim.optimizer_of(config, model.parameter_groups())
    optimizer.check_gradients = False  # a model that diverges is NaN in the table
    for step in range(steps):
        with optim.watched_logits(optimizer, model, step, lambda x: x):
            model(rows[:, :-1], rows[:, 1:]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.train.grad_clip or math.inf)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def activations(model: GPT, tokens: Tensor) -> dict[str, Tensor]:
    """What flows through the model for (B, T) token ids, by place, from its first to its last."""
    found: dict[str, Tensor] = {}
    with _noting(model, found):
        logits = model.logits(tokens)
    return found | {"logits": logits}


@contextmanager
def _noting(model: GPT, found: dict[str, Tensor]) -> Iterator[None]:
    def note(place: str, of: Callable[[Tensor], Tensor] = lambda x: x) -> Callable[..., None]:
        def hook(_module: nn.Module, _given: Any, output: Tensor) -> None:
            found[place] = of(output)

        return hook

    def embedded(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found["embedding"] = given[0]

    blocks = list(model.h)
    handles = [blocks[0].register_forward_pre_hook(embedded)]
    for i, block in enumerate(blocks):
        attention, mlp = block.get_submodule("attn"), block.get_submodule("mlp")
        products = note(f"h.{i} attention logits", lambda x: attention_logits(x, model.shape))
        handles += [
            attention.get_submodule("c_attn").register_forward_hook(products),
            attention.register_forward_hook(note(f"h.{i} attention")),
            mlp.register_forward_hook(note(f"h.{i} MLP")),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attention_logits(qkv: Tensor, shape: Model) -> Tensor:
    """Scaled q . k of all pairs that attention may use, (B, heads, pairs); qkv: (B, T, 3 C)."""
    b, t, _ = qkv.shape
    q, k, _ = qkv.view(b, t, 3, shape.n_head, -1).permute(2, 0, 3, 1, 4)
    query, key = torch.tril_indices(t, t, device=qkv.device)
    scale = shape.attention_scale or 1 / math.sqrt(q.shape[-1])
    return scale * (q @ k.mT)[..., query, key]


# ----------------------------------------------------------------------------- what is said of it


def power(widths: Sequence[float], values: Sequence[float]) -> float:
    """The power of the width that `values` follow, by least squares of logarithms; NaN: of none."""
    if not all(0 < value < math.inf for value in values):
        return math.nan
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def lines(measured: Sequence[Measured]) -> list[str]:
    """A table for people: at the first and the last width, and the power in between."""
    said, widths = [], list(dict.fromkeys(each.width for each in measured))
    ends = f"{f'at {widths[0]}':>10} {f'at {widths[-1]}':>10} {'power':>6}"
    for parametrization in dict.fromkeys(each.parametrization for each in measured):
        said += [f"{parametrization:<23} {'change':^28}   {'size':^28}"]
        said += [f"{'':<23} {ends}   {ends}"]
        own = [each for each in measured if each.parametrization == parametrization]
        for place in dict.fromkeys(each.place for each in own):
            here = [each for each in own if each.place == place]
            parts = []
            for values in ([x.change for x in here], [x.size for x in here]):
                fitted = round(power(widths, values), 2) + 0.0  # no -0.00
                parts.append(f"{values[0]:>10.3g} {values[-1]:>10.3g} {fitted:>6.2f}")
            said.append(f"  {place:<21} {'   '.join(parts)}")
    return said


def _rate(config: Config) -> float:
    return float(config.optimizer.hyperparameters["lr"])


def _said(config: Config, rows: Tensor, settings: Settings) -> str:
    heads, layers = config.model.n_head, config.model.n_layer
    return (
        f"{config.optimizer.name}, {settings.steps} updates at lr {_rate(config):g} on"
        f" {len(rows)} sequences of {rows.shape[1] - 1} tokens, {layers} layers, {heads} heads,"
        f" mean of {settings.seeds} seeds"
    )
