"""A run that starts from weights that exist: `--init run:FOLDER`, `run:FOLDER@STEP`, `hf:FOLDER`.

The child is a new run, with its own name, schedule, clock and step 0. Its configuration names the
parent's checkpoint by step and content, `run:FOLDER@STEP#HASH`: other weights make another run, and
a parent that has moved on or has been moved makes none. Published weights, `hf:FOLDER#HASH`, are
those of a folder in Hugging Face's form, or of a name on its hub (record/huggingface.py).
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs import Config, ConfigError, Model
from configs.validation import validate
from record import checkpoints, huggingface
from record.checkpoints import Checkpoint
from record.runlog import RecordError
from storage import is_locked

SOURCE = re.compile(r"run:(?P<folder>.+?)(@(?P<step>\d+)(#(?P<hash>[0-9a-f]{16}))?)?")
PUBLISHED = re.compile(r"hf:(?P<source>.+?)(#(?P<hash>[0-9a-f]{16}))?")


def resolved(config: Config) -> Config:
    """The same configuration with `init` naming one checkpoint, or published weights, by content.

    Raises:
        ConfigError: there are no such weights, or which are meant is not clear; one line.
    """
    source = _parsed(config)
    if source is None or source["hash"]:
        return config
    if "source" in source:
        found_here = huggingface.folder_of(source["source"]).absolute()
        named = f"hf:{found_here}#{huggingface.content(found_here)}"
        return config.model_copy(update={"init": named})
    folder = Path(source["folder"]).absolute()
    given = f"init = '{config.init}'"
    found = checkpoints.found(folder / "checkpoints")
    if not found:
        what = "holds no checkpoint" if folder.is_dir() else "does not exist"
        raise ConfigError(f"{given}: {folder} {what}; give the folder of a run that has trained")
    steps = [checkpoints.step_of(path) for path in found]
    if source["step"] is None and is_locked(folder):
        raise ConfigError(
            f"{given}: that run still trains; name one of its checkpoints, {_named(steps)}"
        )
    step = steps[0] if source["step"] is None else int(source["step"])
    if step not in steps:
        raise ConfigError(f"{given}: that run has no checkpoint of step {step}; {_named(steps)}")
    path = found[steps.index(step)]
    return config.model_copy(update={"init": f"run:{folder}@{step}#{path.stem[-16:]}"})


def _parsed(config: Config) -> dict[str, Any] | None:
    """Folder, step and hash of `init`, or source and hash if published; None without it."""
    if config.init is None:
        return None
    source = SOURCE.fullmatch(config.init) or PUBLISHED.fullmatch(config.init)
    assert source, "the schema has checked it"
    return source.groupdict()


def _named(steps: list[int]) -> str:
    return "it has " + ", ".join(f"@{step}" for step in sorted(steps))


def of(config: Config) -> Checkpoint | None:
    """The checkpoint that a resolved configuration starts from; None if it does not, or resumes.

    Raises:
        ConfigError: the checkpoint is gone or damaged, or does not fit this run; one line.
    """
    source = _parsed(config)
    if source is None or checkpoints.found(config.directory / "checkpoints"):
        return None
    if "source" in source:
        return _published(config, Path(source["source"]), source["hash"])
    folder, step, content = source["folder"], int(source["step"]), source["hash"]
    path = Path(folder) / "checkpoints" / f"step-{step:08d}-{content}.pt"
    if not path.is_file():
        raise ConfigError(f"init: {path} is gone; bring it back, or start from another checkpoint")
    with path.open("rb") as file:
        if not hashlib.file_digest(file, "sha256").hexdigest().startswith(content):
            raise ConfigError(f"init: {path} is torn or corrupt; start from another checkpoint")
    try:
        saved = checkpoints.load(path, mmap=True)
    except RecordError as error:
        raise ConfigError(f"init: {error}") from None
    _check(config, configuration(saved), folder)
    return saved


def _published(config: Config, folder: Path, content: str) -> Checkpoint:
    """Weights in Hugging Face's form, as a checkpoint of no run: without configuration and state.

    Raises:
        ConfigError: they are gone, have changed or do not fit this run; one line.
    """
    if config.init_optimizer:
        raise ConfigError(
            "init_optimizer = true: published weights come without a state; remove it"
        )
    if huggingface.content(huggingface.folder_of(str(folder))) != content:
        raise ConfigError(f"init: the weights in {folder} have changed since; start another run")
    _check_shape(config.model, huggingface.shape_of(folder), folder)
    weights = huggingface.read(folder)
    return Checkpoint("", "", checkpoints.Progress(), weights, {})


def _check_shape(own: Model, theirs: Model, folder: str | Path) -> None:
    """Raise ConfigError unless the shapes are equal."""
    shapes = own.model_dump(), theirs.model_dump()
    if other := [key for key, value in shapes[0].items() if shapes[1][key] != value]:
        said = [{k: "none" if v is None else v for k, v in shape.items()} for shape in shapes]
        differ = ", ".join(f"model.{k} = {said[0][k]}, not {said[1][k]}" for k in other)
        raise ConfigError(f"init: {folder} has another model than this run ({differ})")


def _check(config: Config, parent: Config, folder: str) -> None:
    """Raise ConfigError unless a run of `config` can begin where `parent` stands."""
    _check_shape(config.model, parent.model, folder)
    names = config.optimizer.name, parent.optimizer.name
    if config.init_optimizer and names[0] != names[1]:
        raise ConfigError(
            f"init_optimizer = true: {folder} was trained with {names[1]}, whose state {names[0]} "
            f"cannot use; leave init_optimizer out, or give --optimizer.name {names[1]}"
        )
    alone = [name for name in parent.optimizer.wrap if name not in config.optimizer.wrap]
    if config.init_optimizer and alone:
        raise ConfigError(
            f"init_optimizer = true: {folder} was trained with optimizer.wrap.{alone[0]}, whose"
            " state this run cannot use; leave init_optimizer out, or give it that wrapper"
        )


def configuration(saved: Checkpoint) -> Config:
    """The configuration of the run that a checkpoint is of.

    Raises:
        ConfigError: it does not fit this version's schema.
    """
    return validate(Config, tomllib.loads(saved.config))


def put_weights(
    config: Config, saved: Checkpoint | None, model: Any, optimizer_of: Callable[..., Any]
) -> None:
    """Give `model` the weights that its training starts from; without a parent, do nothing.

    These are the parent's evaluated weights. An optimizer that averages (schedule-free) trains
    other weights than it evaluates: with init_optimizer the model gets those that it trained.
    """
    if saved is None:
        return
    if config.init_optimizer or not saved.run:
        model.load_state_dict(saved.model)
    else:
        put_evaluated_weights(saved, model, optimizer_of)


def put_evaluated_weights(saved: Checkpoint, model: Any, optimizer_of: Callable[..., Any]) -> None:
    """Give `model` the weights that an evaluation of the saved run used at this step.

    A checkpoint of an earlier version does not hold them: the optimizer makes them anew. Its state
    is read only if an evaluation uses other weights than training: that of an earlier version of a
    method may not fit any more.
    """
    model.load_state_dict(saved.evaluated or saved.model)
    if saved.evaluated:
        return
    optimizer = optimizer_of(configuration(saved), model.parameter_groups())
    if optimizer.averages_weights:
        optimizer.load_state_dict(saved.optimizer)
        optimizer.eval_mode()


def put_state(config: Config, saved: Checkpoint | None, optimizer: Any) -> None:
    """With init_optimizer, give `optimizer` the parent's state; hyperparameters stay this run's.

    Raises:
        ConfigError: its state does not fit the optimizer's hyperparameters; one line.
    """
    if saved is None or not config.init_optimizer:
        return
    own = optimizer.state_dict()["param_groups"]
    groups = [
        theirs | ours for theirs, ours in zip(saved.optimizer["param_groups"], own, strict=True)
    ]
    try:
        checkpoints.put_state(optimizer, {**saved.optimizer, "param_groups": groups})
    except ValueError as error:
        raise ConfigError(f"init_optimizer = true: {error}") from None


def facts(config: Config) -> dict[str, Any] | None:
    """What record.json says of the parent; None without one."""
    source = _parsed(config)
    if source and "source" in source:
        return {"published": source["source"], "content": source["hash"]}
    return source and {
        "run": Path(source["folder"]).name,
        "step": int(source["step"]),
        "checkpoint": source["hash"],
        "optimizer_state": bool(config.init_optimizer),
    }


def words(config: Config) -> str:
    """For the opening lines: from which weights the run starts; empty without a parent."""
    parent = facts(config)
    if not parent:
        return ""
    if "published" in parent:
        return f", from the weights in {parent['published']}"
    state = " and its optimizer's state" if parent["optimizer_state"] else ""
    return f", from the weights of {parent['run']} at step {parent['step']}{state}"
