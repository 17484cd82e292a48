"""Every key of the configuration, with its type, unit and meaning.

A key without a default defines the experiment and comes from a preset (configs/gpt2_124m.toml is
the one used when no file is given). Hyperparameters of optimizers and schedules are not here:
the signature of the class or function in optim/ is their schema.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from configs.shape import Model
from configs.validation import ConfigError, Strict, nearest

Resolve = Callable[[Any], Mapping[str, Any]]  # a table, Optimizer or Schedule, with all its keys
Version = Callable[[str, str], str]  # of the source at a dotted path, which a key names
T = TypeVar("T")

# Keys and tables that change no result: no part of a run's identity. The tokens in data.dir do, and
# a run's record has their hash; of two micro-batches only the rounding differs.
OUTSIDE = (
    "log",
    "checkpoint",
    "launch",
    "diagnose",
    "data.dir",
    "eval.hellaswag",
    "train.micro_batch_size",
    "train.activation_checkpointing",
    "train.shard_optimizer",
)

# Of parameters: matrices inside the network; embeddings of tokens and positions, with a tied head;
# a head that is not tied; whatever has less than two dimensions (train_gpt2.GPT.parameter_groups).
ROLES = ("hidden", "embedding", "head", "vector")


class Data(Strict):
    """Where the token shards lie."""

    dir: str = Field(description="folder of token shards, as `python -m data` writes them")
    format: Literal["auto", "nanogpt"] = Field(
        "auto",
        description="auto: .bin with llm.c's header or .npy; nanogpt: headerless uint16 .bin",
    )


class Train(Strict):
    """The training loop."""

    total_steps: int = Field(gt=0, description="optimizer updates in the run")
    batch_tokens: int = Field(gt=0, description="tokens per update, over all ranks")
    micro_batch_size: Annotated[int, Field(gt=0)] | Literal["auto"] = Field(
        description="sequences per forward pass and rank, at most; saves memory, not results; auto:"
        " the most that fit, found at the start"
    )
    activation_checkpointing: bool = Field(
        False,
        description="a block keeps only its input and runs again in the backward pass: less memory,"
        " about a third more time, the same results",
    )
    grad_clip: float = Field(1.0, ge=0, description="largest global gradient norm; 0: no clipping")
    dtype: Literal["auto", "float32", "bfloat16", "bfloat16-weights"] = Field(
        "auto",
        description="of matrix products (autocast); auto: bfloat16 on CUDA, else float32;"
        " bfloat16-weights: also of the weights' copies and of the residual stream",
    )
    gradient_dtype: Literal["bfloat16"] | None = Field(
        None, description="of gradients on their way between ranks; default: float32, as computed"
    )
    compile: Literal["auto", "max-autotune"] | bool = Field(
        "auto",
        description="torch.compile; auto: on CUDA; max-autotune: also times kernels, for minutes",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA if present")
    shard_optimizer: Literal["auto"] | bool = Field(
        "auto",
        description="ranks share the optimizer's state and work, results stay the same; auto: where"
        " its updates cost several times those of AdamW, as with matrix methods",
    )


class Eval(Strict):
    """Validation: the same first tokens every time, shared by all ranks."""

    every: int = Field(gt=0, description="updates between evaluations; also at step 0 and the end")
    tokens: int = Field(gt=0, description="validation tokens; a multiple of block_size")
    hellaswag: str | None = Field(
        None,
        description="questions of HellaSwag to answer at every evaluation: a file of JSON lines, or"
        " hub; GPT-2's vocabulary only",
    )


class Checkpoint(Strict):
    """Saved state."""

    every: int = Field(1000, ge=0, description="updates between checkpoints; 0: only at the end")
    keep: int = Field(2, gt=0, description="newest checkpoints kept")
    background: bool = Field(
        True, description="write them while training goes on, from a copy in rank 0's memory"
    )


class Launch(Strict):
    """How ranks come together, and what they accept."""

    join_seconds: float = Field(
        45, gt=0, description="s for all ranks to come, and be found equal, before training"
    )
    timeout_seconds: float = Field(
        90, gt=0, description="s without a sign of life from a rank after which the others end"
    )
    accept_other_hardware: bool = Field(
        False,
        description="resume on other hardware than before, also where train.dtype = auto then means"
        " another type; train together on GPUs with other names if they are built alike",
    )


class Diagnose(Strict):
    """Measurements inside an update."""

    every: int | None = Field(
        None, gt=0, description="updates between measurements of every tensor; default: none"
    )


class Log(Strict):
    """Output."""

    dir: str = Field("runs", description="each run has its own folder in it")
    print_every: int = Field(10, gt=0, description="updates between printed lines (no terminal)")
    wandb: Literal["auto", "online", "offline", "disabled"] = Field(
        "auto", description="auto: online where an account is configured, else offline"
    )
    project: str = Field("gpt2-optimizer-bench", description="W&B project")
    entity: str | None = Field(None, description="W&B entity (team or user)")
    group: str | None = Field(None, description="W&B group: the contest")
    job_type: str | None = Field(None, description="W&B job type: the arm")
    tensorboard: bool = Field(False, description="also write event files for TensorBoard")
    profile: int = Field(
        0, ge=0, description="updates after a launch's first one to trace: where does the time go?"
    )


class Named(BaseModel):
    """A name from optim/'s tables (or a dotted path) and its hyperparameters."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    name: str = Field(
        description="from the table (`python -m optim list`), or your own: package.module.Class"
    )

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The keys of the table that the class or function of this name defines."""
        return dict(self.model_extra or {})

    @model_serializer(mode="wrap")
    def _without_empty_tables(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A run without settings by role has the table, and the identity, of one before them."""
        return {key: value for key, value in dump(self).items() if value != {}}


class Role(BaseModel):
    """What the parameters of a role have of their own: hyperparameters of the optimizer's name."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)
    lr_ratio: float = Field(1.0, ge=0, description="factor on optimizer.lr")


def _known_roles(given: dict[str, T]) -> dict[str, T]:
    if unknown := [role for role in given if role not in ROLES]:
        raise ValueError(f"unknown role '{unknown[0]}'; {nearest(unknown[0], ROLES)}")
    return given


class Optimizer(Named):
    """The optimizer, what its roles have of their own, and what is wrapped around it."""

    roles: Annotated[dict[str, Role], AfterValidator(_known_roles)] = Field(
        {}, description="by role of parameters: lr_ratio, and hyperparameters such as weight_decay"
    )
    wrap: dict[str, Any] = Field({}, description="what is wrapped around the optimizer")


class Schedule(Named):
    """The schedule, and those that roles have of their own."""

    roles: Annotated[dict[str, Named], AfterValidator(_known_roles)] = Field(
        {}, description="by role of parameters: a schedule of its own"
    )


class Config(Strict):
    """One run, completely."""

    seed: int = Field(1, ge=0, lt=2**31, description="of initialisation and sampling")
    data_seed: int = Field(1, ge=0, lt=2**63, description="of the order of data")
    init: str | None = Field(
        None,
        description="weights to start from: run:FOLDER[@STEP] of another run, hf:FOLDER (or name on"
        " the hub) of published ones; else those of seed",
    )
    init_optimizer: bool | None = Field(
        None, description="start also with the state of that run's optimizer"
    )
    model: Model
    data: Data
    optimizer: Optimizer
    schedule: Schedule
    train: Train
    eval: Eval
    checkpoint: Checkpoint = Checkpoint()  # type: ignore[call-arg]
    launch: Launch = Launch()  # type: ignore[call-arg]
    diagnose: Diagnose = Diagnose()  # type: ignore[call-arg]
    log: Log = Log()  # type: ignore[call-arg]
    versions: dict[str, str] = Field({}, description="set by the program: source of dotted names")

    @field_validator("init")
    @classmethod
    def _init_is_a_run(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch("(run|hf):.+", value):
            raise ValueError(
                "should be run:FOLDER or run:FOLDER@STEP, FOLDER that of another run, or hf:FOLDER"
                " with published weights"
            )
        return value

    @field_validator("init_optimizer")
    @classmethod
    def _state_needs_weights(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and not info.data.get("init"):
            raise ValueError("needs init as well: the run that the state comes from")
        return value or None  # one spelling, so that the run has one identity

    def resolved(self, optimizer: Resolve, schedule: Resolve, version: Version) -> Config:
        """The same run with complete hyperparameters, and the versions of code from elsewhere.

        Raises:
            ConfigError: as the arguments, which are functions of optim; or `versions` was given,
                and is not that of the present code.
        """
        tables: dict[str, Any] = {
            "optimizer": Optimizer(**optimizer(self.optimizer)),
            "schedule": Schedule(**schedule(self.schedule)),
            "versions": {},
        }
        roles = {f"schedule.roles.{role}": own for role, own in self.schedule.roles.items()}
        for key, named in (
            {"optimizer": self.optimizer, "schedule": self.schedule} | roles
        ).items():
            if "." in named.name:
                tables["versions"][named.name] = version(named.name, f"{key}.name")
        for name, old in self.versions.items():
            if (new := tables["versions"].get(name, old)) != old:
                raise ConfigError(
                    f"{name} has changed: this configuration was written with version {old} of its"
                    f" file, which is {new} now; restore that version, or remove [versions] from"
                    " the configuration; a contest takes the new one when its command is given"
                    " again"
                )
        return self.model_copy(update=tables)

    def table(self) -> dict[str, Any]:
        """Nested plain values, without the keys that are None, which TOML cannot express.

        Nor has it empty tables: runs of our own names have no [versions].
        """
        return {key: v for key, v in self.model_dump(exclude_none=True).items() if v != {}}

    def toml(self) -> str:
        """The configuration as a TOML file that `load` reads back to the same run."""
        return tomli_w.dumps(self.table())

    def decisive(self, outside: Sequence[str] = OUTSIDE) -> dict[str, Any]:
        """The table without the keys and tables that are `outside`: what decides the result."""
        table = self.table()
        for key in outside:
            *tables, name = key.split(".")
            inner = table.get(tables[0], {}) if tables else table
            inner.pop(name, None)
        if self.init:
            table["init"] = self.init.rpartition("#")[2]  # the content, wherever it lies
        return table

    @property
    def identity(self) -> str:
        """8 hex digits: a hash of everything that can change the result, but for the tokens."""
        return _digest(self.decisive())

    @property
    def directory(self) -> Path:
        """The run's folder: its record and its checkpoints."""
        return Path(self.log.dir) / self.run_name

    @property
    def run_name(self) -> str:
        """<optimizer>-<schedule>-s<seed>-<identity>: the name of the run's folder.

        Wrappers follow the optimizer: adamw+ema.
        """
        return f"{self._begin_of_name}-{self.identity}"

    @property
    def former_name(self) -> str:
        """The name that earlier versions gave this run: it held two keys more."""
        held = ("data.dir", "train.micro_batch_size")
        outside = [key for key in OUTSIDE if key not in held]
        return f"{self._begin_of_name}-{_digest(self.decisive(outside))}"

    @property
    def _begin_of_name(self) -> str:
        optimizer, schedule = (n.name.rpartition(".")[2] for n in (self.optimizer, self.schedule))
        optimizer = "+".join([optimizer, *self.optimizer.wrap])
        return f"{optimizer.lower()}-{schedule.lower()}-s{self.seed}"


def _digest(table: Mapping[str, Any]) -> str:
    """8 hex digits of a hash."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:8]
