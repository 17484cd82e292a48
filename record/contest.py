"""What a contest leaves beside its runs: plan.json, tuning.json and timing.json.

    plan = PlanFile.read(Path("runs/schedules"))   # None where the folder holds no contest
    ledger = Ledger.read(Path("runs/schedules"))   # None where nothing was tuned

plan.json lists the runs that are known so far. tuning.json is the ledger: every trial of every arm,
with its loss. A file that does not fit these models is a RecordError of one line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import Field, ValidationError

from configs.validation import Strict
from record.runlog import RecordError
from storage import write_atomically

Role = Literal["report", "tuning", "trunk"]
ROLES: tuple[Role, ...] = get_args(Role)
SMALLEST = 0.005  # nats per token: the smallest difference that matters, unless the contest says
TrialStatus = Literal["finished", "diverged", "failed", "missing"]


class _ContestFile(Strict):
    """One JSON file in a contest's folder."""

    file_name: ClassVar[str]

    @classmethod
    def read(cls, home: Path) -> Self | None:
        """The file in the contest's folder `home`; None without it.

        Raises:
            RecordError: it cannot be read, or its content does not fit; one line.
        """
        path = home / cls.file_name
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RecordError(f"{path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            what = f"{key}: {first['msg']}" if key else first["msg"]
            remedy = "delete it, and `python -m contest` writes it again"
            raise RecordError(f"{path} is damaged ({what}); {remedy}") from error

    def write(self, home: Path) -> None:
        """Replace the file in `home`, atomically.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        text = json.dumps(self.model_dump(), indent=1)
        write_atomically(home / self.file_name, text + "\n")


class PlannedRun(Strict):
    """One run of the plan."""

    id: str  # unique in the contest
    arm: str  # without a length
    role: Role
    seed: int
    data_seed: int
    trial: dict[str, Any] | None  # the tuned keys and their values; None without tuning
    length: int | None  # updates, in a contest of several lengths
    after: str | None  # id of the trunk segment whose end this run starts from
    directory: str  # relative to the contest's folder
    arguments: tuple[str, ...]  # of train_gpt2.py, without --log.*


class PendingRun(Strict):
    """A reporting run whose setting is not known before the tuning of its arm has ended."""

    arm: str
    seed: int


class PlanFile(_ContestFile):
    """plan.json."""

    file_name = "plan.json"

    contest: str
    baseline: str
    target: float | None  # validation loss, nats per token
    arms: tuple[str, ...]  # in the order of the contest file, without lengths
    runs: tuple[PlannedRun, ...]
    pending: tuple[PendingRun, ...]
    problems: tuple[str, ...]  # for the user, one line each
    # by arm, the dotted keys that the contest file sets or tunes for it; absent from older files
    declared: dict[str, tuple[str, ...]] = Field({})
    against: dict[str, str] = Field({})  # by arm, the one that it is compared with: not `baseline`
    # nats per token: arms that differ by less are equivalent; 0: none are
    smallest: float = Field(SMALLEST, ge=0, allow_inf_nan=False)
    text: Literal["fixed", "random"] = "fixed"  # are verdicts for this text, or for others too?
    # check of the last entry of history.jsonl (record/history.py); "" in older files
    history: str = ""


class LedgerTrial(Strict):
    """One setting of one arm, tried with every tuning seed."""

    setting: dict[str, Any]  # dotted key -> value
    runs: tuple[str, ...]  # ids
    loss: float | None  # mean final validation loss; None where it is infinite or not known yet
    status: TrialStatus
    default: bool  # the setting that the arm has without tuning
    candidate: bool  # may win
    losses: tuple[float | None, ...] = ()  # of each run, as `loss`; absent from older files
    round: int = 0  # 0: of the grid or the search; else the round of further trials
    tied: bool = False  # run with the tie seeds too


class TunedArm(Strict):
    """How the tuning of one arm stands. Losses are None where they are infinite or not known."""

    trials: tuple[LedgerTrial, ...]
    best: dict[str, Any] | None
    best_loss: float | None
    edges: tuple[str, ...]  # keys whose best value lies at the end of what was tried
    default: dict[str, Any]
    default_loss: float | None
    gap: float | None  # default_loss - best_loss, both on the tuning seeds
    runner_up: dict[str, Any] | None = None  # the second best of those that could win
    runner_up_gap: float | None = None  # its loss - best_loss


class Ledger(_ContestFile):
    """tuning.json."""

    file_name = "tuning.json"

    contest: str
    method: Literal["grid", "optuna"]
    sampler: str | None  # optuna's
    trials_per_arm: int
    seeds: tuple[int, ...]
    arms: dict[str, TunedArm]
    tie_seeds: tuple[int, ...] = ()
    extend: int = 0  # rounds of further trials at most
    rounds: int = 0  # that were begun

    @property
    def pair_std(self) -> float | None:
        """Std of the difference between two settings with one seed, nats; None if not known."""
        return pair_std(
            [[x for x in trial.losses if x is not None] for trial in arm.trials if trial.losses]
            for arm in self.arms.values()
        )


def pair_std(arms: Iterable[Sequence[Sequence[float]]]) -> float | None:
    """Std of the difference between two settings with one seed, nats, pooled over arms.

    arms: for each, the losses of its settings, by seed. What a seed does to all settings of an arm
    is taken out; settings with as many seeds belong together. None below two settings and seeds.
    """
    squares, freedom = 0.0, 0
    for settings in arms:
        for seeds in {len(losses) for losses in settings}:
            rows = [losses for losses in settings if len(losses) == seeds]
            if len(rows) < 2 or seeds < 2:
                continue
            middle = fmean(map(fmean, rows))
            of_seed = [fmean(column) - middle for column in zip(*rows, strict=True)]
            for row in rows:
                own = fmean(row)
                squares += sum((x - own - s) ** 2 for x, s in zip(row, of_seed, strict=True))
            freedom += (len(rows) - 1) * (seeds - 1)
    return math.sqrt(2 * squares / freedom) if freedom else None


class TimedArm(Strict):
    """Step times of one arm, measured alone."""

    step_ms: tuple[float, ...] = Field(min_length=1)  # mean of each round
    setting: dict[str, Any] | None  # tuned keys and their values; None: the arm's own


class Timing(_ContestFile):
    """timing.json, of `python -m contest X.toml --timing`."""

    file_name = "timing.json"

    contest: str
    measured: str  # UTC
    host: str
    place: str  # GPUs or threads of each run
    updates: int  # that count in each round
    machine: tuple[dict[str, Any], ...]  # record.machine, before each round and after the last
    arms: dict[str, TimedArm]  # without lengths


def group(contest: str, role: Role) -> str:
    """What `log.group`, and so W&B, calls the runs of one role of a contest."""
    return contest if role == "report" else f"{contest}-{role}"


def contest_and_role(group: str) -> tuple[str, Role]:
    """Inverse of `group`."""
    for role in ROLES[1:]:
        if group.endswith(f"-{role}"):
            return group.removesuffix(f"-{role}"), role
    return group, "report"
