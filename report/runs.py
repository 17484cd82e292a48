"""Runs as the report reads them: folders on disk, or a W&B project, as columns of numbers.

    study = read(["runs/schedules"])                 # a contest's folder, or any folder of runs
    study = read(["wandb:lab/gpt2-optimizer-bench/schedules"])

Reading never fails over one bad run: what is wrong with it is said in its `problems`, and it stays
in every table. Only a path that holds no run at all is an error.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from record import runlog
from record.metrics import summarize
from storage import is_locked

Role = Literal["report", "tuning", "trunk"]
Status = Literal["finished", "stopped", "diverged", "running", "failed", "missing"]
Columns = dict[str, NDArray[np.float64]]

ROLES: tuple[Role, ...] = ("report", "tuning", "trunk")
PLAN, CONTEST, LEDGER = "plan.json", "contest.toml", "tuning.json"
RUN_FILES = (runlog.METRICS, runlog.RECORD, runlog.SUMMARY)
NOT_RUNS = ("logs", "checkpoints", "wandb", "optuna")  # of the launcher and the trainer
DEPTH = 5  # folders below a path in which runs are looked for
POOL_FROM = 24  # runs; fewer are read faster without other processes


class ReportError(ValueError):
    """The report cannot be made as asked; one line that says how to mend it."""


@dataclass(frozen=True)
class Run:
    """One run, whatever became of it.

    train: columns of the lines with train/loss, by their full names, plus "step"; NaN where null.
    val: columns of the lines with val/loss: "step", "val/loss", "time/eval_seconds".
    summary: record.metrics.summarize, and what the trainer added (docs/record.md).
    length: updates, where its arm was trained at several lengths; None otherwise.
    """

    name: str
    source: str
    arm: str
    role: Role
    contest: str | None
    seed: int
    data_seed: int
    config: dict[str, Any]
    train: Columns
    val: Columns
    summary: dict[str, Any]
    hashes: dict[str, str]
    facts: dict[str, Any]
    status: Status
    problems: tuple[str, ...] = ()
    length: int | None = None

    @property
    def pair(self) -> tuple[int, int]:
        """What runs of different arms must have in common to be compared: (seed, data_seed)."""
        return self.seed, self.data_seed

    @property
    def diverged(self) -> bool:
        """By its end or by its numbers: docs/record.md."""
        return self.status == "diverged" or bool(self.summary.get("diverged"))

    @property
    def done(self) -> bool:
        """It has a final loss, or will never have one."""
        return self.status == "finished" or self.diverged

    @property
    def total_steps(self) -> int | None:
        """Updates it was configured for; of a run that has not begun, those of the plan."""
        return value_at(self.config, "train.total_steps") or self.length

    @property
    def environment(self) -> dict[str, Any]:
        """Of its latest launch."""
        return (self.facts.get("launches") or [{}])[-1].get("environment") or {}


@dataclass(frozen=True)
class Study:
    """What is to be judged.

    arms: in the contest's order; an arm of several lengths is one arm for each.
    baseline: None where it has to be asked for. An arm of length L is compared with the baseline
    of length L.
    tuning: the ledger, tuning.json. declared: dotted keys that the contest file sets by arm.
    """

    name: str
    runs: list[Run]
    baseline: str | None
    target: float | None
    arms: list[str]
    tuning: dict[str, Any] | None = None
    problems: list[str] = field(default_factory=list)
    declared: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, arm: str, role: Role = "report") -> list[Run]:
        """The runs of one arm in one role, by their seeds."""
        found = [run for run in self.runs if run.role == role and run.arm == arm]
        return sorted(found, key=lambda run: (*run.pair, run.name))


def read(paths: Sequence[str]) -> Study:
    """All runs under `paths`: folders, and "wandb:entity/project[/group]".

    Errors: ReportError for a path that does not exist or holds no run.
    """
    studies = [read_wandb(path) if path.startswith("wandb:") else read_folder(path)
               for path in paths]  # fmt: skip
    study = studies[0] if len(studies) == 1 else merge(studies)
    return by_length(without_copies(study))


def read_wandb(path: str) -> Study:
    """A W&B project as a study; needs the package wandb."""
    from report import wandb_source

    return study_of(path.removeprefix("wandb:"), wandb_source.read_wandb(path))


def study_of(name: str, runs: list[Run]) -> Study:
    """Runs without a plan; their arms in the order of their names."""
    arms = sorted({run.arm for run in runs})
    return Study(name, runs, None, None, arms)


# ---------------------------------------------------------------------------------------- folders


@dataclass(frozen=True)
class Place:
    """Where a run lies, and what the contest's plan says of it."""

    folder: Path
    plan: Mapping[str, Any] = field(default_factory=dict)
    contest: str | None = None


def read_folder(path: str) -> Study:
    """The runs under one folder, and the contest's plan where there is one."""
    root = Path(path)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise ReportError(f"{path} {what}; give a folder of runs, or wandb:ENTITY/PROJECT")
    problems: list[str] = []
    places, studies = [], []
    for home, found in sorted(search(root, problems).items()):
        plan = read_object(home / PLAN, problems, optional=True) or {}
        if plan:
            studies.append(contest_of(home, plan, problems))
        places += planned(home, plan, found, problems)
    runs = read_places(places)
    if not runs:
        raise ReportError(
            f"{path} holds no run (a folder with {', '.join(RUN_FILES)}); give the folder that "
            "train_gpt2.py or `python -m contest` wrote"
        )
    loose = study_of(root.resolve().name, [run for run in runs if run.contest is None])
    if not studies:
        return replace(study_of(root.resolve().name, runs), problems=problems)
    own = [replace(s, runs=[run for run in runs if run.contest == s.name]) for s in studies]
    known = {study.name for study in studies}
    loose = replace(loose, runs=[run for run in runs if run.contest not in known])
    whole = merge([*own, loose]) if loose.runs else (own[0] if len(own) == 1 else merge(own))
    return replace(whole, problems=[*problems, *whole.problems])


def search(root: Path, problems: list[str]) -> dict[Path, list[Path]]:
    """Run folders below `root`, by the contest's folder that they belong to (or `root`)."""
    found: dict[Path, list[Path]] = {root: []}
    walk(root, root, 0, found, problems)
    return {home: runs for home, runs in found.items() if runs or (home / PLAN).exists()}


def walk(
    folder: Path, home: Path, depth: int, found: dict[Path, list[Path]], problems: list[str]
) -> bool:
    """Add the runs below `folder`; whether there were any."""
    if any((folder / name).exists() for name in RUN_FILES):
        found[home].append(folder)
        return True
    if (folder / PLAN).exists():
        home = folder
        found.setdefault(home, [])
    try:
        inside = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except OSError as error:
        problems.append(f"{folder} cannot be read: {error.strerror}; it is left out")
        return False
    inside = [entry for entry in inside if not (entry.name.startswith(".") or entry.is_symlink())]
    inside = [entry for entry in inside if entry.name not in NOT_RUNS]
    if depth == DEPTH:
        if inside:
            problems.append(f"{folder} is {DEPTH} folders deep; what lies in it was not searched")
        return False
    any_below = [walk(entry, home, depth + 1, found, problems) for entry in inside]
    empty = [e.name for e, holds in zip(inside, any_below, strict=True) if not holds]
    empty = [name for name in empty if name not in ("tuning", "trunk")]  # not begun yet
    if empty and (any(any_below) or depth == 0):
        problems.append(f"{folder}: no run in {', '.join(empty)}; left out")
    return any(any_below) or (folder / PLAN).exists()


def contest_of(home: Path, plan: Mapping[str, Any], problems: list[str]) -> Study:
    """What plan.json, tuning.json and contest.toml say of a contest; without its runs."""
    name = str(plan.get("contest") or home.resolve().name)
    pending = Counter(str(entry.get("arm")) for entry in plan.get("pending") or [])
    said = [f"{name}: {n} runs of {arm} wait for its tuning" for arm, n in pending.items()]
    said += [str(problem) for problem in plan.get("problems") or []]
    ledger = read_object(home / LEDGER, problems) if (home / LEDGER).exists() else None
    arms = [str(arm) for arm in plan.get("arms") or []]
    baseline, target = plan.get("baseline"), plan.get("target")
    return Study(name, [], baseline, target, arms, ledger or None, said, declared(home, problems))


def declared(home: Path, problems: list[str]) -> dict[str, dict[str, Any]]:
    """Dotted keys that contest.toml sets by arm."""
    try:
        table = tomllib.loads((home / CONTEST).read_text(encoding="utf-8"))
        return {str(arm.get("name")): runlog.flat(arm) for arm in table.get("arm", [])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        problems.append(f"{home / CONTEST} cannot be read: {error}")
        return {}


def planned(
    home: Path, plan: Mapping[str, Any], folders: Iterable[Path], problems: list[str]
) -> list[Place]:
    """The places of one contest: those of the plan, also without a folder, then the others."""
    name = str(plan.get("contest") or home.resolve().name) if plan else None
    entries = [entry for entry in plan.get("runs") or [] if isinstance(entry, dict)]
    at = {home / str(e.get("directory", e.get("id"))): e for e in entries}
    others = [folder for folder in folders if folder not in at]
    if plan and others:
        names = ", ".join(sorted(folder.name for folder in others)[:5])
        problems.append(f"{name}: {len(others)} run folders are not in {PLAN} ({names}); they are "
                        "read as they are")  # fmt: skip
    return [Place(folder, entry, name) for folder, entry in at.items()] + [
        Place(folder, {}, name) for folder in others
    ]


def read_places(places: Sequence[Place]) -> list[Run]:
    """All of them, in order; many of them by one process per core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(cores or 1, 16)
    if (
        len(places) < POOL_FROM
        or workers == 1
        or "fork" not in multiprocessing.get_all_start_methods()
    ):
        return [read_run(place) for place in places]
    context = multiprocessing.get_context("fork")  # the workers read files and do arithmetic only
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(pool.map(read_run, places, chunksize=4))


# ---------------------------------------------------------------------------------------- one run


def read_run(place: Place) -> Run:
    """One run's folder. Never fails: `problems` says what is wrong."""
    folder, problems = place.folder, list[str]()
    config = read_config(folder, problems)
    facts = read_object(folder / runlog.RECORD, problems) or {}
    summary = read_object(folder / runlog.SUMMARY, problems, optional=True)
    records = read_lines(folder / runlog.METRICS, problems)
    train, val = columns(records, problems)
    identity = identify(place, config, problems)
    status = status_of(folder, summary, facts, problems)
    numbers = numbers_of(summary, records, config, val, problems) if status != "missing" else {}
    if status != "missing":
        check_lines(train, val, config, status, problems)
    hashes = {k: v for k, v in (facts.get("hashes") or {}).items() if isinstance(v, str)}
    return Run(
        name=folder.name, source=str(folder), config=config, train=train, val=val,
        summary=numbers, hashes=hashes, facts=facts, status=status, problems=tuple(problems),
        **identity,
    )  # fmt: skip


def read_config(folder: Path, problems: list[str]) -> dict[str, Any]:
    """config.toml as nested dicts; {} with a problem when it is absent or damaged."""
    path = folder / runlog.CONFIG
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if folder.exists():
            problems.append(f"no {runlog.CONFIG}: arm, seeds and length are guessed")
    except (OSError, ValueError) as error:
        problems.append(f"{runlog.CONFIG} is damaged ({error}): arm, seeds and length are guessed")
    return {}


def read_object(path: Path, problems: list[str], optional: bool = False) -> dict[str, Any] | None:
    """A file that holds one JSON object; None, and a problem unless optional, without it."""
    try:
        return runlog.decode(path.read_bytes())
    except FileNotFoundError:
        if path.parent.exists() and not optional:
            problems.append(f"no {path.name}")
    except (OSError, ValueError, AttributeError) as error:
        problems.append(f"{path.name} is damaged ({error}) and left out")
    return None


def identify(place: Place, config: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Arm, role, contest, seeds and length: from the plan, else from the configuration."""
    plan = place.plan
    group = value_at(config, "log.group")
    role = next((r for r in ROLES[1:] if str(group).endswith(f"-{r}")), "report")
    if group and role != "report":
        group = group.removesuffix(f"-{role}")
    arm = plan.get("arm") or value_at(config, "log.job_type") or named(config) or place.folder.name
    role = plan.get("role", role)
    if role not in ROLES:
        problems.append(f"role {role!r} in {PLAN} is not one of {', '.join(ROLES)}; read as report")
        role = "report"
    seeds = {}
    for key in ("seed", "data_seed"):
        seeds[key] = plan.get(key, config.get(key, 1))
        if key in config and config[key] != seeds[key]:
            problems.append(f"{key} is {seeds[key]} in {PLAN} but {config[key]} in its own "
                            f"{runlog.CONFIG}, which counts")  # fmt: skip
            seeds[key] = config[key]
    contest = place.contest or group
    return {
        "arm": str(arm),
        "role": role,
        "contest": contest,
        "length": plan.get("length"),
        **seeds,
    }


def named(config: Mapping[str, Any]) -> str | None:
    """<optimizer>-<schedule>: the arm of a run outside a contest."""
    names = [value_at(config, "optimizer.name"), value_at(config, "schedule.name")]
    return "-".join(str(n).rpartition(".")[2] for n in names) if all(names) else None


def read_lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, damaged ones left out and named."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        if path.parent.exists():
            problems.append(f"no {path.name}: it has no numbers")
        return []
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
        return []
    torn = lines.pop()  # b"" where the last line is whole
    if torn:
        problems.append(f"{path.name}: its last line is cut ({len(torn)} bytes) and left out")
    try:  # one call for all lines is twice as fast
        records = json.loads(b"[" + b",".join(lines) + b"]")
        sound = all(type(r) is dict and type(r.get("step")) is int for r in records)
        if sound and len(records) == len(lines):
            return [restore(record) for record in records]
    except ValueError:
        pass
    return whole_lines(path, lines, problems)


def restore(record: dict[str, Any]) -> dict[str, Any]:
    """NaN and infinities put back, as record.runlog.decode does."""
    if odd := record.pop("nonfinite", None):
        record.update({name: float(value) for name, value in odd.items()})
    return record


def whole_lines(path: Path, lines: list[bytes], problems: list[str]) -> list[dict[str, Any]]:
    """Line by line, where one of them is damaged."""
    records, bad = [], []
    for number, line in enumerate(lines, start=1):
        try:
            record = runlog.decode(line)
            if type(record.get("step")) is not int:
                raise ValueError("no step")
            records.append(record)
        except (ValueError, AttributeError, TypeError):
            bad.append(number)
    if bad:
        which = f"line {bad[0]}" if len(bad) == 1 else f"{len(bad)} lines, the first is {bad[0]},"
        problems.append(f"{path.name}: {which} damaged and left out")
    return records


def columns(records: Sequence[dict[str, Any]], problems: list[str]) -> tuple[Columns, Columns]:
    """(train, val) as columns, by step; of a step that comes twice the later line counts."""
    train = {r["step"]: r for r in records if "train/loss" in r}
    val = {r["step"]: r for r in records if "val/loss" in r}
    updates = sum("train/loss" in r for r in records)
    if len(train) < updates:
        problems.append(f"{updates - len(train)} steps are recorded twice; the later line counts")
    train_names = dict.fromkeys(name for r in train.values() for name in r)
    return table(train, train_names), table(val, ("step", "val/loss", "time/eval_seconds"))


def table(records: Mapping[int, dict[str, Any]], names: Iterable[str]) -> Columns:
    """Columns of float64 in the order of the steps; what is no number is NaN."""
    rows = [records[step] for step in sorted(records)]
    result: Columns = {}
    for name in names if rows else ("step",):
        values = [row.get(name) for row in rows]
        try:
            result[name] = np.array(values, dtype=np.float64)  # None becomes NaN
        except (TypeError, ValueError):
            numbers = (v if isinstance(v, int | float) else np.nan for v in values)
            result[name] = np.array(list(numbers), dtype=np.float64)
    return result


def status_of(
    folder: Path, summary: Mapping[str, Any] | None, facts: Mapping[str, Any], problems: list[str]
) -> Status:
    """How the run stands, from disk alone."""
    if not any((folder / name).exists() for name in RUN_FILES):
        problems.append("planned, and not begun")
        return "missing"
    ended = (summary or {}).get("status")
    if ended in runlog.STATUSES:
        if ended == "stopped":
            problems.append("stopped before its end; the same command goes on")
        return ended
    if is_locked(folder):
        problems.append("still running")
        return "running"
    last = (facts.get("launches") or [{}])[-1]
    if last.get("status") == "failed":
        problems.append(f"failed: {last.get('error')}")
        return "failed"
    problems.append("ended without a summary (killed?); the same command goes on")
    return "stopped"


def numbers_of(
    summary: dict[str, Any] | None,
    records: list[dict[str, Any]],
    config: Mapping[str, Any],
    val: Columns,
    problems: list[str],
) -> dict[str, Any]:
    """summary.json where it agrees with the lines, else the same numbers computed from them."""
    total = value_at(config, "train.total_steps")
    if not isinstance(total, int):
        total = (summary or {}).get("steps") or max((r["step"] for r in records), default=0)
    at_end = val["val/loss"][val["step"] == total] if "val/loss" in val else np.array([])
    final = float(at_end[-1]) if len(at_end) else None
    if summary and "final_val_loss" in summary:
        told = summary["final_val_loss"]
        if same(told, final) or not records:
            return summary
        problems.append(f"summary.json has final val loss {told}, metrics.jsonl {final}; computed "
                        "from metrics.jsonl")  # fmt: skip
    try:
        return (summary or {}) | summarize(records, total)
    except (TypeError, ValueError, KeyError) as error:
        problems.append(f"its numbers cannot be computed: {error!r}")
        return summary or {}


def same(a: float | None, b: float | None) -> bool:
    """Equal, also as None or NaN."""
    if a is None or b is None:
        return a is b
    return a == b or (a != a and b != b)


def check_lines(
    train: Columns, val: Columns, config: Mapping[str, Any], status: Status, problems: list[str]
) -> None:
    """Name updates and evaluations that should be there and are not."""
    steps = train.get("step", np.array([]))
    if len(steps) and len(steps) != int(steps[-1]) + 1:
        problems.append(f"{int(steps[-1]) + 1 - len(steps)} updates are missing in metrics.jsonl")
    total, every = value_at(config, "train.total_steps"), value_at(config, "eval.every")
    if not (isinstance(total, int) and isinstance(every, int) and every > 0):
        return
    reached = total if status == "finished" else int(steps[-1]) if len(steps) else -1
    due = {step for step in (*range(0, total, every), total) if step <= reached}
    missing = sorted(due - {int(step) for step in val.get("step", ())})
    if missing:
        said = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        problems.append(f"{len(missing)} evaluations are missing, at step {said}")
    if status == "finished" and len(steps) and int(steps[-1]) + 1 < total:
        problems.append(f"finished, but its last update is {int(steps[-1])} of {total}")


# ----------------------------------------------------------------------------------------- studies


def merge(studies: Sequence[Study]) -> Study:
    """Several sources as one; an arm's name that two contests use gets the contest's before it."""
    uses = Counter(arm for study in studies for arm in set(study.arms))
    clash = {arm for arm, count in uses.items() if count > 1}
    clash = clash if len({s.name for s in studies}) == len(studies) else set()
    named = [qualified(study, clash) for study in studies]
    baselines = {study.baseline for study in named if study.baseline}
    targets = {study.target for study in named if study.target is not None}
    ledgers = [study.tuning for study in named if study.tuning]
    problems = [problem for study in named for problem in study.problems]
    if clash:
        problems.append(f"several contests have an arm {', '.join(sorted(clash))}; each is named "
                        "after its contest")  # fmt: skip
    if len(ledgers) > 1:
        arms = {arm: entry for led in ledgers for arm, entry in (led.get("arms") or {}).items()}
        ledgers = [{**ledgers[0], "arms": arms}]
    return Study(
        name=" + ".join(dict.fromkeys(study.name for study in named)),
        runs=[run for study in named for run in study.runs],
        baseline=baselines.pop() if len(baselines) == 1 else None,
        target=targets.pop() if len(targets) == 1 else None,
        arms=list(dict.fromkeys(arm for study in named for arm in study.arms)),
        tuning=ledgers[0] if ledgers else None,
        problems=problems,
        declared={arm: keys for study in named for arm, keys in study.declared.items()},
    )


def qualified(study: Study, clash: set[str]) -> Study:
    """`study` with the arms in `clash` named "<contest>/<arm>"."""
    if not clash:
        return study

    def new(arm: str) -> str:
        return f"{study.name}/{arm}" if arm in clash else arm

    ledger = study.tuning
    if ledger:
        ledger = {**ledger, "arms": {new(a): e for a, e in (ledger.get("arms") or {}).items()}}
    return replace(
        study,
        runs=[replace(run, arm=new(run.arm)) for run in study.runs],
        arms=[new(arm) for arm in study.arms],
        baseline=new(study.baseline) if study.baseline else None,
        tuning=ledger,
        declared={new(arm): keys for arm, keys in study.declared.items()},
    )


def without_copies(study: Study) -> Study:
    """Each folder once; of two runs with the same arm and seeds the further one."""
    order: dict[Status, int] = {"finished": 0, "diverged": 1, "running": 2, "stopped": 3}
    runs: dict[Any, Run] = {}
    problems = list(study.problems)
    for run in sorted(study.runs, key=lambda run: order.get(run.status, 4)):
        steps = run.total_steps if run.role == "report" else run.name
        key = (run.arm, run.role, run.pair, steps)
        first = runs.setdefault(key, run)
        if first is not run and not same_place(first.source, run.source):
            problems.append(f"{run.source} has arm, seeds and length of {first.source}, which "
                            "counts; it is left out")  # fmt: skip
    kept = {id(run) for run in runs.values()}
    return replace(study, runs=[r for r in study.runs if id(r) in kept], problems=problems)


def same_place(a: str, b: str) -> bool:
    """Whether two sources are one folder."""
    return os.path.realpath(a) == os.path.realpath(b)


def by_length(study: Study) -> Study:
    """An arm whose reporting runs have several lengths becomes one arm for each of them."""
    lengths = {
        arm: sorted({run.total_steps for run in study.of(arm) if run.total_steps})
        for arm in {run.arm for run in study.runs}
    }
    split = {arm for arm, found in lengths.items() if len(found) > 1}
    missing = sorted({run.arm for run in study.runs if run.role == "report"} - {*study.arms})
    arms = [*study.arms, *missing]
    if not split:
        return replace(study, arms=arms)
    known = {length for arm in split for length in lengths[arm]}

    def label(run: Run) -> Run:
        steps = run.total_steps
        many = run.role == "report" and steps and (run.arm in split or steps in known)
        return replace(run, arm=at_length(run.arm, steps), length=steps) if many else run

    names = [
        name
        for arm in arms
        for name in ([at_length(arm, n) for n in lengths.get(arm, []) if n] or [arm])
    ]
    said = f"trained at several lengths: {', '.join(sorted(split))}; each length is an arm"
    runs = [label(run) for run in study.runs]
    return replace(study, runs=runs, arms=names, problems=[*study.problems, said])


def at_length(arm: str, steps: int | None) -> str:
    """The name of an arm at one of its lengths."""
    return f"{arm} @ {steps:,}"


def plain(arm: str) -> str:
    """The arm's name without its length."""
    return arm.rpartition(" @ ")[0] or arm


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """A dotted key of nested dicts; None when it is absent."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
