"""launch/slurm.sbatch on a real SLURM: one run over two nodes, disturbed, ends like any other."""

import sys

import pytest

from report.runlog import read_metrics, read_record, read_summary
from tests.jobs import ROOT, command, finish, job, only_run
from tests.slurm.cluster import wait_until

TIMES = {"tokens_per_second", "mfu"}  # with time/* and memory/* all that a resumed run may change
LONG = ["--train.total_steps", "300", "--eval.every", "100", "--checkpoint.every", "50"]


def numbers(directory):
    """metrics.jsonl without the times."""
    return [
        {k: v for k, v in x.items() if k not in TIMES and not k.startswith(("time/", "memory/"))}
        for x in read_metrics(directory)
    ]


def submit(cluster, tmp_path, *arguments, options=("--nodes=2",), **environment):
    """Job number of a run submitted as docs/slurm.md says."""
    exports = ",".join(["ALL", f"PYTHON={sys.executable}", *(f"{k}={v}" for k, v in environment.items())])
    return cluster.run(
        "sbatch", "--parsable", f"--chdir={ROOT}", f"--output={tmp_path}/%j.out",
        f"--export={exports}", *options, str(ROOT / "launch/slurm.sbatch"), *arguments,
    ).strip()  # fmt: skip


def reached(runs, step, launches):
    """Has the run done this many updates, in its so-manieth launch?"""
    for directory in runs.glob("*-s1-*"):
        if len((read_record(directory) or {}).get("launches", [])) >= launches:
            return any(line["step"] >= step for line in read_metrics(directory)[-1:])
    return False


def test_run_over_two_nodes_signalled_and_preempted_ends_as_if_nothing_had_happened(
    cluster, shards, tmp_path
):
    arguments = [*command(shards, tmp_path / "runs"), *LONG]
    number = submit(cluster, tmp_path, *arguments)
    wait_until(lambda: reached(tmp_path / "runs", 20, 1), 60, lambda: cluster.log(number))
    cluster.run("scancel", "--signal=USR2", number)  # as SLURM does before the time limit
    wait_until(lambda: reached(tmp_path / "runs", 20, 2), 60, lambda: cluster.log(number))
    other = cluster.run(
        "sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null",
        "--wrap", "srun true",
    ).strip()  # fmt: skip
    cluster.wait(other, "COMPLETED")
    ended = cluster.wait(number)

    undisturbed = [*command(shards, tmp_path / "undisturbed"), *LONG]
    finish(job(undisturbed, nproc=2))
    directory, reference = only_run(tmp_path / "runs"), only_run(tmp_path / "undisturbed")
    assert ended["JobState"] == "COMPLETED", cluster.log(number)
    assert ended["Restarts"] == "2", cluster.log(number)
    launches = read_record(directory)["launches"]
    assert [x.get("status") for x in launches] == ["stopped", "stopped", "finished"]
    assert {x["environment"]["world_size"] for x in launches} == {2}
    assert read_summary(directory)["final_val_loss"] == read_summary(reference)["final_val_loss"]
    assert numbers(directory) == numbers(reference)
