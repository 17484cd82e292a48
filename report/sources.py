"""From the paths on the command line to a study: contests' folders, loose runs, W&B projects.

    study = read(["runs/schedules"])                 # a contest's folder, or any folder of runs
    study = read(["runs/A", "runs/B"])               # any runs; the first is the baseline
    study = read(["docs/results/schedules_small"])   # a published contest: no runs, but results.csv
    study = read(["wandb:lab/gpt2-optimizer-bench/schedules"])

Reading never fails over one bad run: its `problems` say what is wrong with it, and it stays in
every table. Only a path that holds no run, or a plan that does not fit its schema, is an error.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from record.contest import Ledger, PlanFile, Timing
from record.hardware import usable_cores
from record.runlog import RecordError
from report import history, results
from report.arms import unequal, with_arms
from report.folders import RUN_FILES, Place, holds_run, read_object, read_run
from report.inside_figures import with_noise_scale
from report.run import WANDB_PREFIX, ReportError, Run
from report.seconds import with_shared
from report.sharpness import with_last
from report.study import Study, by_length, merge, without_copies

File = TypeVar("File", PlanFile, Ledger, Timing)

NOT_RUNS = ("logs", "checkpoints", "wandb", "optuna")  # of the launcher and the trainer
NOT_BEGUN = ("tuning", "trunk")  # may be empty
DEPTH = 5  # folders below a path in which runs are looked for
POOL_FROM = 24  # runs; fewer are read faster without other processes
MOST_WORKERS = 16
SHOWN_NAMES = 5  # in a message


@dataclass(frozen=True)
class _Home:
    """A contest's folder, or the path given; the run folders found below; the contest's plan."""

    folder: Path
    runs: list[Path]
    plan: PlanFile | None

    @property
    def contest(self) -> str | None:
        """The contest's name; None without a plan."""
        return self.plan.contest if self.plan else None


@dataclass(frozen=True)
class _Part:
    """What lies under one path: contests with their runs, by folder, and runs without a plan."""

    name: str
    contests: dict[Path, Study]
    loose: list[Run]
    problems: list[str]


def read(paths: Sequence[str], baseline: str | None = None) -> Study:
    """All runs under `paths`: folders, and "wandb:entity/project[/group]".

    Contests have the arms and the baseline of their plans. All other runs are sorted into arms by
    their settings; without a contest, the first arm is the baseline.
    baseline: the arm to use instead, or a run of it, by its name or folder.

    Raises:
        ReportError: a path does not exist or holds no run, a plan does not fit its schema, or W&B
            does not answer.
    """
    parts = [
        _read_wandb(path) if path.startswith(WANDB_PREFIX) else _read_folder(path) for path in paths
    ]
    contests = _told_apart({k: study for part in parts for k, study in part.contests.items()})
    studies = [*contests, _loose(parts)] if any(part.loose for part in parts) else contests
    study = studies[0] if len(studies) == 1 else merge(studies)
    problems = [*(problem for part in parts for problem in part.problems), *study.problems]
    study = without_copies(replace(study, problems=problems))
    study = by_length(replace(study, runs=with_shared(study.runs)))
    study = with_noise_scale(with_last(study))
    if baseline is not None:
        return replace(study, baseline=_arm_of(study, baseline))
    return study if contests else _with_first_baseline(study, choice=len(paths) == 1)


def _told_apart(contests: Mapping[Path, Study]) -> list[Study]:
    """The contests; those of one name are parts of one, unless they gave an arm unequal settings.

    Then each is named after its folder.
    """
    found = []
    for folder, contest in contests.items():
        runs = [run for c in contests.values() if c.name == contest.name for run in c.runs]
        if keys := unequal(runs):
            why = f"{contest.name}: another contest of that name differs in {', '.join(keys)}"
            contest = replace(contest, name=str(folder), problems=[*contest.problems, why])
        found.append(contest)
    return found


def _loose(parts: Sequence[_Part]) -> Study:
    """The runs without a plan as one study, the arms of earlier paths first."""
    counts = [len(part.loose) for part in parts]
    runs = with_arms([run for part in parts for run in part.loose])
    ends = list(itertools.accumulate(counts))
    groups = [runs[end - n : end] for n, end in zip(counts, ends, strict=True)]
    arms = [arm for group in groups for arm in sorted({run.arm for run in group})]
    names = list(dict.fromkeys(part.name for part in parts if part.loose))
    more = [f"{len(names) - SHOWN_NAMES} more"] if len(names) > SHOWN_NAMES else []
    name = " + ".join([*names[:SHOWN_NAMES], *more])
    return Study(name, runs, None, None, list(dict.fromkeys(arms)))


def _arm_of(study: Study, word: str) -> str:
    """The arm of the run that `word` names or is the folder of; else `word` itself."""
    without = [study.without_length(arm) for arm in study.arms]
    named = (run.arm for run in study.runs if run.name == Path(word).name and run.role == "report")
    arm = next(named, word)
    if word in {*study.arms, *without}:
        return word
    return study.without_length(arm) if len(set(without)) > 1 else arm


def _with_first_baseline(study: Study, choice: bool) -> Study:
    """The first arm as the baseline; choice: nobody has said which one is first."""
    base, problems = study.without_length(study.arms[0]), list(study.problems)
    others = {*map(study.without_length, study.arms)} - {base}
    if not others:  # the lengths of one arm: that of the first run, or the shortest
        ran = (run.arm for run in study.runs if run.role == "report")
        base = study.arms[0] if choice else next(ran, study.arms[0])
    if choice and len(study.arms) > 1:
        problems.append(
            f"no baseline was named: {base} is the first by name; --baseline ARM names another"
        )
    return replace(study, baseline=base, problems=problems)


def _read_wandb(path: str) -> _Part:
    """A W&B project; needs the package wandb."""
    from report.wandb_runs import read_wandb

    return _Part(path.removeprefix(WANDB_PREFIX), {}, read_wandb(path), [])


def _read_folder(path: str) -> _Part:
    """The runs under one folder, and the contests' plans where there are any."""
    root, problems = Path(path), list[str]()
    if table := table_of(root):
        return _read_table(table)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        valid = "a folder of runs, a results.csv, or wandb:ENTITY/PROJECT"
        raise ReportError(f"{path} {what}; give {valid}")
    homes = [
        _Home(folder, found, _contest_file(PlanFile, folder, problems))
        for folder, found in sorted(_search(root, problems).items())
    ]
    contests = {home.folder: _contest(home, problems) for home in homes if home.plan}
    placed = [(home, place) for home in homes for place in _places(home, problems)]
    runs = _read_places([place for _, place in placed])
    if not runs:
        raise ReportError(
            f"{path} holds no run (a folder with {', '.join(RUN_FILES)}); give the folder that "
            "train_gpt2.py or `python -m contest` wrote"
        )
    names = {contest.name: folder for folder, contest in contests.items()}
    loose: list[Run] = []
    own: dict[Path, list[Run]] = {folder: [] for folder in contests}
    for run, (home, _) in zip(runs, placed, strict=True):
        folder = home.folder if home.plan else names.get(run.contest or "")
        (own[folder] if folder else loose).append(run)
    return _Part(
        name=root.resolve().name,
        contests={k: replace(study, runs=with_arms(own[k])) for k, study in contests.items()},
        loose=loose,
        problems=problems,
    )


def table_of(path: Path) -> Path | None:
    """The results.csv that stands for runs: `path` itself, or in a folder that has no run."""
    table = path if path.suffix == ".csv" else path / results.RESULTS
    return table if table.is_file() and (table == path or not _holds_runs(path)) else None


def _holds_runs(folder: Path) -> bool:
    return any(_search(folder, []).values())


def _read_table(file: Path) -> _Part:
    """The runs that a results.csv lists, and the contest's own files beside it."""
    problems: list[str] = []
    home = _Home(file.parent, [], _contest_file(PlanFile, file.parent, problems))
    runs = results.read(file)
    if home.plan is None:
        return _Part(file.parent.name, {}, runs, problems)
    contest = _contest(home, problems)
    said = f"runs are as {file} lists them, without updates, sequences and machines"
    contest = replace(contest, runs=runs, history=[*contest.history, said])
    return _Part(contest.name, {file.parent: contest}, [], problems)


# ------------------------------------------------------------------------------------------ search


def _search(root: Path, problems: list[str]) -> dict[Path, list[Path]]:
    """Run folders below `root`, by the contest's folder that they belong to (or `root`)."""
    found: dict[Path, list[Path]] = {root: []}
    _walk(root, root, 0, found, problems)
    return {home: runs for home, runs in found.items() if runs or _is_contest(home)}


def _is_contest(folder: Path) -> bool:
    """Whether a contest's plan lies in `folder`."""
    return (folder / PlanFile.file_name).exists()


def _walk(
    folder: Path, home: Path, depth: int, found: dict[Path, list[Path]], problems: list[str]
) -> bool:
    """Add the runs below `folder`; returns whether there is a run or a plan."""
    if holds_run(folder):
        found[home].append(folder)
        return True
    if _is_contest(folder):
        home = folder
        found.setdefault(home, [])
    inside = _subfolders(folder, problems)
    if depth == DEPTH:
        if inside:
            problems.append(f"{folder} is {DEPTH} folders deep; its subfolders were not searched")
        return False
    below = {entry.name: _walk(entry, home, depth + 1, found, problems) for entry in inside}
    empty = [name for name, holds in below.items() if not holds and name not in NOT_BEGUN]
    if empty and (any(below.values()) or depth == 0):
        problems.append(f"{folder}: no run in {', '.join(empty)}; left out")
    return any(below.values()) or _is_contest(folder)


def _subfolders(folder: Path, problems: list[str]) -> list[Path]:
    """Folders in which runs may lie, by name; not links, so that no run is met twice."""
    try:
        inside = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except OSError as error:
        problems.append(f"{folder} cannot be read: {error.strerror}; it is left out")
        return []
    return [
        entry
        for entry in inside
        if not (entry.name.startswith(".") or entry.is_symlink() or entry.name in NOT_RUNS)
    ]


# ---------------------------------------------------------------------------------------- contests


def _contest_file(file: type[File], folder: Path, problems: list[str]) -> File | None:
    """plan.json or tuning.json of a contest; None without it, or with a problem if it is torn.

    Raises:
        ReportError: the file is JSON, but not such a file.
    """
    if read_object(folder / file.file_name, problems, optional=True) is None:
        return None
    try:
        return file.read(folder)
    except RecordError as error:
        raise ReportError(str(error)) from error


def _contest(home: _Home, problems: list[str]) -> Study:
    """What plan.json and tuning.json say of a contest; without its runs."""
    plan = home.plan
    assert plan is not None
    past = history.read(home.folder, plan)
    pending = Counter(entry.arm for entry in plan.pending)
    waiting = [
        f"{plan.contest}: runs of {arm} that wait for its tuning: {n}" for arm, n in pending.items()
    ]
    timing = _contest_file(Timing, home.folder, problems)
    if timing and any(state.get("other_runs") for state in timing.machine):
        shared = "other runs were on the machine during --timing, which counts for nothing"
        problems.append(f"{plan.contest}: {shared}; time it again without them")
        timing = None
    return Study(
        name=plan.contest,
        runs=[],
        baseline=plan.baseline,
        target=plan.target,
        arms=list(plan.arms),
        tuning=_contest_file(Ledger, home.folder, problems),
        problems=[*waiting, *plan.problems, *past.late],
        declared=plan.declared,
        against=plan.against,
        step_ms={arm: timed.step_ms for arm, timed in timing.arms.items()} if timing else {},
        smallest=plan.smallest,
        random_text=plan.text == "random",
        pending=len(plan.pending),
        history=list(past.lines),
    )


def _places(home: _Home, problems: list[str]) -> list[Place]:
    """The runs of the plan, also those without a folder; then the folders that are not in it."""
    planned = {home.folder / run.directory: run for run in (home.plan.runs if home.plan else ())}
    others = [folder for folder in home.runs if folder not in planned]
    if home.plan and others:
        names = ", ".join(sorted(folder.name for folder in others)[:SHOWN_NAMES])
        where = f"run folders not in {PlanFile.file_name}: {len(others)} ({names})"
        problems.append(f"{home.contest}: {where}; they are read as they are")
    return [
        *(Place(folder, home.contest, run) for folder, run in planned.items()),
        *(Place(folder, home.contest) for folder in others),
    ]


def _read_places(places: Sequence[Place]) -> list[Run]:
    """All of them, in order; many of them by one process per core."""
    workers = min(usable_cores(), MOST_WORKERS)
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    if len(places) < POOL_FROM or workers == 1 or not can_fork:
        return [read_run(place) for place in places]
    context = multiprocessing.get_context("fork")  # the workers read files and do arithmetic only
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(pool.map(read_run, places, chunksize=4))
