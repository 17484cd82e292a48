"""`python -m analysis sharpness`: how curved the loss is at a checkpoint, by several measures."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from analysis.batch import Batch, first_sequences, rows_at_once, seen_sequences
from analysis.curvature import largest_eigenvalues, trace
from analysis.loss import Loss
from analysis.neighbourhood import Subspace, adaptive, keskar
from analysis.preconditioner import Preconditioner, preconditioner
from analysis.progress import bar
from analysis.rescaling import rescaled
from analysis.trained import Origin, Trained, each_checkpoint, origin_of, weights_of
from configs import ConfigError
from record import sharpness as record
from record.sharpness import Neighbourhood, Preconditioned, Sharpness

EPSILONS = (1e-3, 5e-4)  # of Keskar's boxes
RHO = 5e-3  # of adaptive sharpness
DIMENSIONS = 100  # of the random subspace, as Keskar et al. have it


@dataclass(frozen=True)
class Settings:
    """What is measured, and on what. eigenvalues, draws, passes: 0 leaves their measures out.

    rescale: of the weights before measuring, each in turn (analysis/rescaling.py).
    """

    split: str
    tokens: int
    eigenvalues: int
    draws: int
    passes: int
    rescale: tuple[float, ...]
    seed: int
    device: str


def measure_all(sources: list[str], settings: Settings) -> None:
    """Measure all checkpoints that are named, print each, and add it to its run's record.

    Raises:
        ConfigError: a mistake of the user; where it can be told, before anything is measured.
        DataError: the run's data are gone or damaged.
        RecordError: a checkpoint or a record is damaged.
        OSError: the record cannot be written.
    """
    origins = [_checked(each, settings) for source in sources for each in each_checkpoint(source)]
    for origin in origins:
        source = weights_of(origin, settings.device)
        batch = _text(origin, settings)
        for alpha in settings.rescale:
            found = measure(source, origin, batch, alpha, settings)
            print("\n".join(lines(source.source, found)), flush=True)
            record.add(origin.folder, [found])
    for folder in dict.fromkeys(origin.folder for origin in origins):
        print(folder / record.FILE)


def _checked(source: str, settings: Settings) -> Origin:
    """The checkpoint that `source` names, if it can be measured and the result kept."""
    origin = origin_of(source)
    if origin is None:
        what = "is a run without checkpoints" if _is_run(Path(source)) else "is not a run's folder"
        raise ConfigError(
            f"{source} {what}; give a run that has checkpoints, as runs/NAME or NAME@STEP"
        )
    record.read(origin.folder)
    if not os.access(origin.folder, os.W_OK):
        raise ConfigError(f"{origin.folder} cannot be written; copy the run, and give the copy")
    _text(origin, settings)
    return origin


def _text(origin: Origin, settings: Settings) -> Batch:
    if settings.split == "seen":
        return seen_sequences(origin.config, settings.tokens, origin.saved.progress.step)
    return first_sequences(origin.config, settings.split, settings.tokens)


def _is_run(folder: Path) -> bool:
    return (folder / "config.toml").is_file()


def measure(
    source: Trained, origin: Origin, batch: Batch, alpha: float, settings: Settings
) -> Sharpness:
    """All measures of one model, rescaled by `alpha`; shows a progress bar on a terminal.

    Raises:
        ConfigError: its loss is not finite, or eigenvalues do not converge; one line.
    """
    began, count, seed = time.perf_counter(), settings.eigenvalues, settings.seed
    model = source.model if alpha == 1 else rescaled(source.model, alpha)
    with bar(source.source) as progress:
        loss = Loss.of(model, batch.rows, rows_at_once(model), progress.update)
        if not math.isfinite(value := loss.value()):
            raise ConfigError(f"{source.source}: its loss is {value}; give an earlier checkpoint")
        progress.set_postfix_str("largest eigenvalues")
        eigenvalues = largest_eigenvalues(loss, count, seed=seed) if count else []
        scaling = "left out" if not count else _scaling(origin, source, alpha)
        preconditioned = None
        if isinstance(scaling, Preconditioner):
            progress.set_postfix_str("preconditioned eigenvalue")
            (first,) = largest_eigenvalues(loss, 1, scaling.factors, seed=seed)
            preconditioned = Preconditioned(eigenvalue=first, lr=scaling.lr, limit=scaling.limit)
        progress.set_postfix_str("trace")
        estimate = trace(loss, settings.draws, seed) if settings.draws else (None, None)
        progress.set_postfix_str("neighbourhood")
        boxes, relative = _neighbourhoods(loss, settings) if settings.passes else ((), None)
    return Sharpness(
        step=origin.saved.progress.step,
        checkpoint=origin.path.stem[-16:],
        split=batch.split,
        tokens=batch.tokens,
        text=batch.text,
        rescaled=alpha,
        loss=value,
        eigenvalues=tuple(eigenvalues),
        trace=estimate[0],
        trace_error=estimate[1],
        preconditioned=preconditioned,
        not_preconditioned=scaling if isinstance(scaling, str) else None,
        neighbourhoods=boxes,
        dimensions=DIMENSIONS,
        adaptive=relative,
        rho=RHO,
        draws=settings.draws,
        passes=settings.passes,
        seed=seed,
        device=str(model.wte.weight.device),
        torch=torch.__version__,
        seconds=time.perf_counter() - began,
    )


def _scaling(origin: Origin, source: Trained, alpha: float) -> Preconditioner | str:
    """How the optimizer scales the gradient, or why that is not known."""
    if alpha != 1:
        return "the optimizer has not trained the rescaled weights"
    return preconditioner(origin, source.model)


def _neighbourhoods(loss: Loss, settings: Settings) -> tuple[tuple[Neighbourhood, ...], float]:
    """Keskar's sharpness in both boxes, and adaptive sharpness."""
    subspace = Subspace.drawn(loss.weights, DIMENSIONS, settings.seed)
    boxes = tuple(
        Neighbourhood(
            epsilon=epsilon,
            all_directions=keskar(loss, epsilon, settings.passes),
            subspace=keskar(loss, epsilon, settings.passes, subspace),
        )
        for epsilon in EPSILONS
    )
    return boxes, adaptive(loss, RHO, settings.passes)


def lines(source: str, found: Sharpness) -> list[str]:
    """A measurement for people."""
    scaled = "" if found.rescaled == 1 else f", weights rescaled by {found.rescaled:g}"
    said = [f"{source}{scaled}: loss {found.loss:.4f} on {found.tokens:,} {found.split} tokens"]
    if found.eigenvalues:
        values = ", ".join(f"{x:.4g}" for x in found.eigenvalues)
        said.append(f"  largest eigenvalues of the Hessian: {values}")
    if p := found.preconditioned:
        said.append(
            f"  preconditioned by the optimizer: {p.eigenvalue:.4g}; steps on a quadratic are"
            f" stable below {p.limit / p.lr:.4g} = {p.limit:.3g} / lr (2 / lr: {2 / p.lr:.4g})"
        )
    elif found.eigenvalues:
        said.append(f"  preconditioned by the optimizer: not known, as {found.not_preconditioned}")
    if found.trace is not None:
        said.append(f"  trace: {found.trace:.4g}, standard error {found.trace_error:.2g}")
    for box in found.neighbourhoods:
        said.append(
            f"  Keskar's sharpness at {box.epsilon:g}: {box.all_directions:.4g} %, in"
            f" {found.dimensions} random directions {box.subspace:.4g} %"
        )
    if found.adaptive is not None:
        said.append(f"  adaptive sharpness at {found.rho:g}: {found.adaptive:.4g} nats")
    return said
