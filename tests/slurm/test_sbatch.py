"""launch/slurm.sbatch on a real SLURM: one run over two nodes, disturbed, ends like any other."""

import os
import signal
import sys

import pytest

from contest.job import resolved
from record.runlog import read_metrics, read_record, read_summary
from tests.jobs import ROOT, command, finish, job, metrics, only_run, wait_until

LIMIT = 240  # s; on two idle cores it takes 10
LONG = ["--train.total_steps", "300", "--eval.every", "100", "--checkpoint.every", "50"]


def submit(cluster, tmp_path, *arguments, options=("--nodes=2",), **environment):
    """Job number of a run submitted as docs/slurm.md says."""
    environment |= {"PYTHON": sys.executable}
    exports = ",".join(["ALL", *(f"{k}={v}" for k, v in environment.items())])
    return cluster.run(
        "sbatch", "--parsable", f"--chdir={ROOT}", f"--output={tmp_path}/%j.out",
        f"--export={exports}", *options, str(ROOT / "launch/slurm.sbatch"), *arguments,
    ).strip()  # fmt: skip


def reached(runs, step, launches):
    """Whether launch number `launches` has done `step` updates."""
    for directory in runs.glob("*-s1-*"):
        if len((read_record(directory) or {}).get("launches", [])) >= launches:
            return any(line["step"] >= step for line in read_metrics(directory)[-1:])
    return False


def test_run_over_two_nodes_signalled_and_preempted_ends_as_if_nothing_had_happened(
    cluster, shards, tmp_path
):
    arguments, runs = [*command(shards, tmp_path / "runs"), *LONG], tmp_path / "runs"
    number = submit(cluster, tmp_path, *arguments)
    wait_until(lambda: reached(runs, 20, 1), LIMIT, lambda: cluster.log(number))
    cluster.run("scancel", "--signal=USR2", number)  # as SLURM does before the time limit
    wait_until(lambda: reached(runs, 20, 2), LIMIT, lambda: cluster.log(number))
    other = cluster.run(
        "sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive",
        "--output=/dev/null", "--wrap", "srun true",
    ).strip()  # fmt: skip
    cluster.wait(other, "COMPLETED")
    finish(job([*command(shards, tmp_path / "undisturbed"), *LONG], nproc=2), LIMIT)
    ended = cluster.wait(number)

    directory, reference = only_run(runs), only_run(tmp_path / "undisturbed")
    assert ended["JobState"] == "COMPLETED", cluster.log(number)
    assert ended["Restarts"] == "2", cluster.log(number)
    launches = read_record(directory)["launches"]
    assert [x.get("status") for x in launches] == ["stopped", "stopped", "finished"]
    assert {x["environment"]["world_size"] for x in launches} == {2}
    assert read_summary(directory)["final_val_loss"] == read_summary(reference)["final_val_loss"]
    assert metrics(directory) == metrics(reference)


@pytest.mark.slow
def test_rank_killed_in_an_elastic_run_is_restarted_in_place(cluster, shards, tmp_path):
    arguments, runs = [*command(shards, tmp_path / "runs"), *LONG], tmp_path / "runs"
    number = submit(cluster, tmp_path, *arguments, MAX_RESTARTS=1)
    wait_until(lambda: reached(runs, 60, 1), LIMIT, lambda: cluster.log(number))
    os.kill(read_record(only_run(runs))["launches"][0]["pid"], signal.SIGKILL)
    ended = cluster.wait(number)
    assert ended["JobState"] == "COMPLETED", cluster.log(number)
    assert ended["Restarts"] == "0"
    launches = read_record(only_run(runs))["launches"]
    assert [x["environment"]["start_step"] for x in launches] == [0, 50]
    assert read_summary(only_run(runs))["status"] == "finished"


def test_wrong_command_line_ends_the_job_with_its_line(cluster, shards, tmp_path):
    arguments = [*command(shards, tmp_path / "runs"), "--trian.total_steps", "5"]
    number = submit(cluster, tmp_path, *arguments)
    assert cluster.wait(number)["ExitCode"] == "2:0"
    assert "did you mean 'train.total_steps'" in cluster.log(number)


def test_run_that_cannot_resume_is_not_requeued_forever(cluster, shards, tmp_path):
    """Its folder says `stopped`, but that was another time."""
    arguments = [*command(shards, tmp_path / "runs"), "--data.dir", "/nowhere"]
    folder = tmp_path / "runs" / resolved(tuple(arguments)).run_name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text('{\n "status": "stopped"\n}\n')
    number = submit(cluster, tmp_path, *arguments, options=["--nodes=1"])
    ended = cluster.wait(number)
    assert (ended["JobState"], ended["Restarts"]) == ("FAILED", "0"), cluster.log(number)
    assert "/nowhere does not exist" in cluster.log(number)
