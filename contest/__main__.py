"""`python -m contest CONTEST.toml`: plan a contest and run what is missing of it.

    python -m contest configs/contest/quickstart.toml --dry-run
    python -m contest configs/contest/quickstart.toml
    python -m report runs/quickstart
    python -m contest configs/contest/quickstart.toml --executor slurm --time 4:00:00

Killed at any moment, the same command goes on. docs/contests.md says how to write a contest file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from rich.console import Console

from configs import ConfigError
from contest import estimate, local, slurm, watch
from contest import file as contests
from contest.attempts import attempts
from contest.file import Contest
from contest.job import ENDED, State, state
from contest.plan import Plan, check, make, written
from record import runlog
from storage import LockedError, lock

OPEN_TRIALS = 8  # of a search on SLURM, in each arm, without --jobs
WIDE = 160  # characters, where no terminal says how many


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0: all runs done; 1: some are not (yet); 2: something to mend; 130: stopped."""
    options = parser().parse_args(argv)
    try:
        return launch(options)
    except (ConfigError, runlog.RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    kind = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser("python -m contest", description=__doc__, formatter_class=kind)
    p.add_argument("contest", type=Path, metavar="CONTEST.toml")
    p.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR",
                   help="the contest's folder lies in it (default: runs)")  # fmt: skip
    p.add_argument("--dry-run", action="store_true", help="print the plan and what it will cost")
    p.add_argument("--probe", action="store_true",
                   help="with --dry-run: time a few updates, however long they take")  # fmt: skip
    p.add_argument("--status", action="store_true", help="print how the runs stand")
    p.add_argument("--jobs", type=int, metavar="N",
                   help="runs at once (default: as there are GPUs or cores for)")  # fmt: skip
    p.add_argument("--gpus-per-run", type=int, metavar="M", help="default 1; 0: CPU cores")
    p.add_argument("--nproc", type=int, metavar="N",
                   help="torchrun processes of a run (default: its GPUs)")  # fmt: skip
    p.add_argument("--retry-failed", action="store_true", help="run failed ones again")
    p.add_argument("--executor", choices=["local", "slurm"], default="local",
                   help="slurm: submit what can run and leave (docs/slurm.md)")  # fmt: skip
    on = p.add_argument_group("with --executor slurm")
    on.add_argument("--partition", metavar="NAME")
    on.add_argument("--time", metavar="LIMIT", help="of a job; a longer run goes on in the next")
    on.add_argument("--nodes", type=int, default=1, metavar="N", help="of a run (default: 1)")
    on.add_argument("--sbatch", default="", metavar="OPTIONS",
                    help="more for sbatch: '--account=lab --cpus-per-task=16'")  # fmt: skip
    return p


def launch(options: argparse.Namespace) -> int:
    """Do what the command line says. Raises ConfigError or RecordError, one line."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    contest = contests.read(options.contest)
    home = options.out.absolute() / contest.name
    if options.status:
        plan = written(contest, options.out) or make(contest, options.out)
        past = attempts(home)
        disk = {job.id: state(job, past) for job in plan.jobs}
        watch.show(plan, console, slurm.states(plan) if options.executor == "slurm" else disk)
        return 0
    chosen = local.Options(options.jobs, options.gpus_per_run, options.nproc, options.retry_failed)
    gpus = local.visible_gpus()
    cluster = on_slurm(options) if options.executor == "slurm" else None
    if cluster:
        places = [local.Slot("SLURM", {}, cluster.world_size)] * (cluster.jobs or 1)
    else:
        places = local.slots(chosen, gpus, local.cores())
    check(contest, home, max(1, places[0].nproc))
    for notice in contest.notices:
        print(f"notice: {notice}", file=sys.stderr)
    if options.dry_run:
        dry_run(make(contest, options.out), options, places, bool(gpus), console)
        return 0
    check_data(make(contest, options.out))
    with held(home):
        if cluster:
            return submit(make(contest, options.out, cluster.jobs or OPEN_TRIALS), cluster)
        return run(contest, options, chosen, places, console)


def on_slurm(options: argparse.Namespace) -> slurm.Options:
    """What the command line says about SLURM."""
    return slurm.Options(
        partition=options.partition,
        time=options.time,
        nodes=options.nodes,
        gpus_per_run=options.gpus_per_run,
        nproc=options.nproc,
        jobs=options.jobs,
        sbatch=options.sbatch,
        retry_failed=options.retry_failed,
    )


def submit(plan: Plan, cluster: slurm.Options) -> int:
    """Submit what can run and is not on its way; returns the exit code, 0 when all is done."""
    plan.write()
    for submission in slurm.submit(plan, cluster):
        print(f"submitted {len(submission.jobs)} runs as job array {submission.number}")
    return ending(plan, slurm.states(plan))


def held(home: Path) -> IO[str]:
    """The contest's lock, which the kernel lets go of when this process dies."""
    try:
        return lock(home)
    except LockedError as error:
        raise ConfigError(f"this contest is being run: {error}; "
                          "--status shows how it stands, --out DIR gives it another "
                          "folder") from None  # fmt: skip


def check_data(plan: Plan) -> None:
    """Raise ConfigError once, instead of having every run fail."""
    for folder in dict.fromkeys(job.config.data.dir for job in plan.jobs):
        if not Path(folder).is_dir():
            raise ConfigError(f"no folder {folder}, where data.dir says the tokens are; prepare it "
                              "(the contest file or docs/data.md says how), or change "
                              "data.dir")  # fmt: skip


def dry_run(
    plan: Plan,
    options: argparse.Namespace,
    places: list[local.Slot],
    gpus: bool,
    console: Console,
) -> None:
    """Print the plan; nothing is written."""
    known = estimate.paces(plan, options.out)
    job = plan.jobs[0]
    source = f"not known: no finished run of this size lies under {options.out}; try --probe"
    if not known and (options.probe or estimate.quick(job.config, gpus)):
        try:
            check_data(plan)
            known = {estimate.size(job.config): estimate.probe(job, places[0])}
        except ConfigError as error:
            source = f"not known: {error}"
    if known:
        source = f"from {next(iter(known.values())).source}"
    shown = estimate.table(plan, known, len(places))
    shown.caption = f"time: {source}; {len(places)} runs at once"
    console.print(shown)
    for run_ in plan.jobs:
        print(f"{state(run_):9} {run_.role:7} {run_.arm:12} {' '.join(run_.arguments)}")


def run(
    contest: Contest,
    options: argparse.Namespace,
    chosen: local.Options,
    places: list[local.Slot],
    console: Console,
) -> int:
    """Run what is missing; returns the exit code."""
    with watch.Screen(console) if console.is_terminal else watch.Lines(console) as shown:
        runner = local.Runner(
            lambda: make(contest, options.out, len(places)), places, chosen, shown
        )
        plan = runner.run()
        if isinstance(shown, watch.Screen):
            shown.draw(runner)
    code = ending(plan, runner.states)
    return 130 if runner.stopping else code


def ending(plan: Plan, states: Mapping[str, State]) -> int:
    """Say how the contest stands and what to type next; returns the exit code."""
    missing = [job for job in plan.jobs if states[job.id] not in ENDED]
    failed = [job for job in missing if states[job.id] == "failed"]
    for problem in plan.problems:
        print(f"problem: {problem}", file=sys.stderr)
    for job in failed:
        print(f"failed: {watch.title(job)}, see {job.log}", file=sys.stderr)
    print(f"{watch.counts(plan, states)} in {plan.home}")
    if failed:
        print("--retry-failed runs the failed ones again", file=sys.stderr)
    if missing or plan.pending or plan.problems:
        return 1
    print(f"look at it: python -m report {plan.home}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
