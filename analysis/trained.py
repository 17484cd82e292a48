"""The model of a run, with the weights that it evaluated, or of a folder in Hugging Face's form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

import optim
from configs import Config, ConfigError
from data.vocabulary import Tokenizer, tokenizer_name, tokenizer_named
from record import checkpoints, huggingface, parents
from record.checkpoints import Checkpoint
from train_gpt2 import GPT


@dataclass(frozen=True)
class Origin:
    """The run that a model is of, and its checkpoint: the file and what it holds."""

    folder: Path
    config: Config
    path: Path
    saved: Checkpoint


@dataclass(frozen=True)
class Trained:
    """A model, in evaluation mode, and where it comes from."""

    model: GPT
    source: str  # for people and records
    origin: Origin | None = None  # the run; None for published weights

    @property
    def data_dir(self) -> Path | None:
        """Of the run; None for published weights."""
        return Path(self.origin.config.data.dir) if self.origin else None

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of its data.

        Raises:
            ConfigError: which one it was is not known; one line.
            DataError: its vocabulary cannot be loaded.
        """
        size = self.model.shape.vocab_size
        name = tokenizer_name(self.data_dir, size)
        if name is None:
            raise ConfigError(
                f"{self.source} has a vocabulary of {size}, which is neither GPT-2's (50257) nor"
                " bytes (257), and its data folder does not name a tokenizer: no text without one"
            )
        tokenizer = tokenizer_named(name)
        if tokenizer.vocab_size != size:
            raise ConfigError(
                f"{self.source} has a vocabulary of {size}, but its tokens were made by '{name}',"
                f" with {tokenizer.vocab_size}; no text without the right tokenizer"
            )
        return tokenizer


def trained(source: str, device: str = "auto") -> Trained:
    """The model at `source`: a run's folder, that and @STEP, or a folder or name of published ones.

    Raises:
        ConfigError: there is no model, or none of this step; one line.
        RecordError: no checkpoint of the run is whole.
    """
    origin = origin_of(source)
    return _published(source, device) if origin is None else weights_of(origin, device)


def origin_of(source: str) -> Origin | None:
    """The run and checkpoint that `source` names, whose tensors are read when used; None: neither.

    Raises:
        ConfigError, RecordError: as `trained`.
    """
    folder, at, step = source.rpartition("@")
    if not at or Path(source).is_dir():
        folder, step = source, ""
    if not (Path(folder) / "checkpoints").is_dir():
        return None
    found = whole = checkpoints.found(Path(folder) / "checkpoints")
    if not whole:
        raise _without_checkpoints(folder)
    if step and not re.fullmatch(r"\d+", step):
        raise ConfigError(f"'{source}': after @ should be the step of a checkpoint")
    if step:
        found = [path for path in found if checkpoints.step_of(path) == int(step)]
    if not found:
        steps = [checkpoints.step_of(path) for path in whole]
        has = ", ".join(f"@{s}" for s in sorted(steps))
        raise ConfigError(f"'{source}' has no such checkpoint; it has {has}")
    path = found[0] if step else checkpoints.newest_whole(Path(folder) / "checkpoints")
    assert path, "there is one"
    try:
        saved = checkpoints.load(path, mmap=True)
    except (RuntimeError, EOFError):  # newest_whole has passed over such a file, @STEP names it
        raise ConfigError(f"{path} is torn or corrupt; give another checkpoint") from None
    return Origin(Path(folder), parents.configuration(saved), path, saved)


def weights_of(origin: Origin, device: str = "auto") -> Trained:
    """The model of a run at a checkpoint."""
    config, saved = origin.config, origin.saved
    model = GPT.initialised(config.model, config.seed)
    parents.put_evaluated_weights(saved, model, optim.optimizer_of)
    where = f"{origin.folder} at step {saved.progress.step}"
    return Trained(model.to(device_named(device)).eval(), where, origin)


def each_checkpoint(source: str) -> list[str]:
    """`FOLDER@all` as FOLDER@STEP of all checkpoints of the run, oldest first; else the source.

    Raises:
        ConfigError: the run has no checkpoint; one line.
    """
    folder, at, step = source.rpartition("@")
    if not at or step != "all" or Path(source).is_dir():
        return [source]
    found = checkpoints.found(Path(folder) / "checkpoints")
    if not found:
        raise _without_checkpoints(folder)
    return [f"{folder}@{step}" for step in sorted({checkpoints.step_of(path) for path in found})]


def _published(source: str, device: str) -> Trained:
    if (Path(source) / "config.toml").is_file():
        raise _without_checkpoints(source)
    folder = huggingface.folder_of(source)
    model = GPT.initialised(huggingface.shape_of(folder), 0)
    model.load_state_dict(huggingface.read(folder))
    return Trained(model.to(device_named(device)).eval(), str(folder))


def _without_checkpoints(folder: str) -> ConfigError:
    return ConfigError(f"{folder} is a run without checkpoints; let it train to one first")


def device_named(name: str) -> torch.device:
    """The device of this name; auto: CUDA if present (ConfigError: there is none)."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"--device {name}: no GPU is visible; use --device cpu")
    return torch.device(name)
