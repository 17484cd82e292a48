"""What `python -m contest` does once its command line is parsed."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import IO

from rich.console import Console

from configs import ConfigError
from contest import estimate, local, memory, slurm, timing, watch
from contest import file as contests
from contest.attempts import attempts
from contest.conclusion import conclude
from contest.file import Contest
from contest.history import note
from contest.job import State, state
from contest.plan import Plan, check, check_data, make, written
from contest.slots import Slot, slots
from launch.node import visible_gpus
from record import runlog
from record.hardware import usable_cores
from record.machine import other_runs
from storage import LockedError, lock

PLACES = ("jobs", "gpus_per_run", "runs_per_gpu", "nproc")  # options of slots()
OPEN_TRIALS = 8  # of a search on SLURM, in each arm, without --jobs
WIDE = 160  # characters, if no terminal says how many


def carry_out(options: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code, after one line for a user error."""
    try:
        return _carry_out(options)
    except (ConfigError, runlog.RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _carry_out(options: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    _check_counts(options)
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    contest = contests.read(options.contest)
    home = options.out.absolute() / contest.name
    if options.status:
        return _show_status(contest, options, console)
    gpus = visible_gpus()
    cluster = _cluster(options) if options.executor == "slurm" else None
    if options.timing and cluster:
        remedy = "give it without --executor slurm on a node, for instance under srun"
        raise ConfigError(f"--timing measures the machine that it is started on; {remedy}")
    if cluster:
        places = [Slot("SLURM", {}, cluster.world_size)] * (cluster.jobs or 1)
    else:
        wanted = {name: getattr(options, name) for name in PLACES}
        wanted |= {"jobs": 1, "runs_per_gpu": None} if options.timing else {}
        places = slots(gpus, usable_cores(), **wanted)
    check(contest, home, places[0].nproc)
    for notice in contest.notices:
        print(f"notice: {notice}", file=sys.stderr)
    plan = make(contest, options.out)
    if (options.runs_per_gpu or 1) > 1:
        _check_sizes(plan)
    if options.dry_run:
        estimate.show(plan, options.out, places, console, gpus=bool(gpus), probe=options.probe)
        for line in memory.lines(plan, _room(cluster, places), places[0].nproc):
            print(line)
        return 0
    check_data(plan)
    with _hold(home):
        if options.timing:
            return _time(plan, places[0])
        note(plan)
        if cluster:
            return _submit(contest, options, cluster)
        return _run(contest, options, places, console)


def _check_counts(options: argparse.Namespace) -> None:
    """Check the numbers of runs, nodes, ranks and GPUs.

    Raises:
        ConfigError: one of them is too small.
    """
    counts = {"jobs": 1, "nproc": 1, "nodes": 1, "gpus_per_run": 0, "runs_per_gpu": 1}
    for name, least in counts.items():
        value = getattr(options, name)
        if value is not None and value < least:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {value} should be {least} or more")
    if options.runs_per_gpu and options.executor == "slurm":
        raise ConfigError("--runs-per-gpu is for this machine's GPUs; leave it out with slurm")


def _check_sizes(plan: Plan) -> None:
    """Runs that share a GPU cannot each take what is free.

    Raises:
        ConfigError: one of them would.
    """
    if any(job.config.train.micro_batch_size == "auto" for job in plan.jobs):
        remedy = "give its number of sequences, or leave --runs-per-gpu out"
        raise ConfigError(f"train.micro_batch_size = auto takes a GPU for itself; {remedy}")


def _cluster(options: argparse.Namespace) -> slurm.Options:
    """What the command line says about SLURM."""
    return slurm.Options(**{f.name: getattr(options, f.name) for f in fields(slurm.Options)})


def _show_status(contest: Contest, options: argparse.Namespace, console: Console) -> int:
    """Print how the runs stand; needs no torch if the plan was written before."""
    plan = written(contest, options.out) or make(contest, options.out)
    if options.executor == "slurm":
        states = slurm.states(plan)
    else:
        past = attempts(plan.home)
        states = {job.id: state(job, past) for job in plan.jobs}
    watch.show(plan, console, states)
    return 0


def _room(cluster: slurm.Options | None, places: Sequence[Slot]) -> memory.Room:
    """The memory of a rank."""
    if cluster:
        return memory.room(bool(cluster.gpus_per_node), elsewhere=True, ranks=1)
    if gpu := places[0].environment["CUDA_VISIBLE_DEVICES"]:
        there = [p for p in places if p.environment["CUDA_VISIBLE_DEVICES"] == gpu]
        ranks = sum(place.nproc for place in there) / len(gpu.split(","))
        return memory.room(True, elsewhere=False, ranks=math.ceil(ranks))
    return memory.room(False, elsewhere=False, ranks=sum(place.nproc for place in places))


def _hold(home: Path) -> IO[str]:
    """The contest's lock, which the kernel releases when this process dies."""
    try:
        return lock(home)
    except LockedError as error:
        remedy = "--status shows how it stands, --out DIR gives it another folder"
        raise ConfigError(f"this contest is being run: {error}; {remedy}") from None


def _submit(contest: Contest, options: argparse.Namespace, cluster: slurm.Options) -> int:
    """Submit what can run and is not queued or running; returns the exit code."""
    plan = make(contest, options.out, cluster.jobs or OPEN_TRIALS)
    plan.write()
    for submission in slurm.submit(plan, cluster):
        print(f"submitted {len(submission.jobs)} runs as job array {submission.number}")
    return _end(plan, slurm.states(plan))


def _time(plan: Plan, place: Slot) -> int:
    """Measure step times and write timing.json; returns the exit code."""
    if others := other_runs():
        counts = "the report will leave these times out"
        print(f"notice: {others} other trainings run on this machine: {counts}", file=sys.stderr)
    timed = timing.measure(plan, place, lambda text: print(text, flush=True))
    timed.write(plan.home)
    base = median(timed.arms[plan.contest.table.baseline].step_ms)
    for name, arm in timed.arms.items():
        low, high, middle = min(arm.step_ms), max(arm.step_ms), median(arm.step_ms)
        spread = f"{middle:.4g} ms ({low:.4g} to {high:.4g})"
        print(f"{name}: {spread} per update, {middle / base:.3f} of the baseline's")
    print(f"written to {plan.home / timed.file_name}: python -m report {plan.home}")
    return 0


def _run(
    contest: Contest, options: argparse.Namespace, places: list[Slot], console: Console
) -> int:
    """Run what is missing on this machine; returns the exit code."""
    with watch.Screen(console) if console.is_terminal else watch.Lines(console) as shown:
        runner = local.Runner(
            refresh=lambda: make(contest, options.out, len(places)),
            places=places,
            watch=shown,
            retry_failed=options.retry_failed,
        )
        plan = runner.run()
        if isinstance(shown, watch.Screen):
            shown.draw(runner)
    code = _end(plan, runner.states)
    return 130 if runner.stopping else code


def _end(plan: Plan, states: Mapping[str, State]) -> int:
    """Print how the contest stands and, if it is done, what came out; returns the exit code."""
    code = watch.ending(plan, states)
    if code == 0:
        conclude(plan.home)
    return code
