"""Where the time of an update goes: the parts of a trace, and a run that profiles itself."""

import gzip
import json
import re

import pytest
from torch.profiler import record_function

from record.profile import ALWAYS, Profile, parts, table
from record.runlog import read_metrics, read_record
from tests.jobs import command, finish, metrics, only_run, ranks
from train_gpt2 import main

HOST, BACKWARD_THREAD, GPU = 1, 2, 7


def event(cat, name, start, end, tid=HOST, **args):
    return {
        "ph": "X",
        "cat": cat,
        "name": name,
        "ts": start,
        "dur": end - start,
        "tid": tid,
        "args": args,
    }


def regions(*given):
    return [event("user_annotation", *region) for region in given]


def kernel(number, name, launched, start, end, tid=HOST):
    return [
        event("cuda_runtime", "cudaLaunchKernel", launched, launched + 1, tid, correlation=number),
        event("kernel", name, start, end, GPU, correlation=number),
    ]


def seconds(events):
    updates, shares, beside = parts(events)
    return updates, {row: us for row, us in shares.items() if us}, beside


def test_on_a_cpu_the_parts_are_what_the_host_does_and_exposed_communication():
    events = [
        *regions(("ProfilerStep#1", 0, 100), ("ProfilerStep#2", 100, 200)),
        *regions(("data", 2, 5), ("forward", 5, 30), ("backward", 30, 80), ("optimizer", 85, 95)),
        *regions(("logging", 96, 99), ("forward", 105, 195)),
        event("cpu_op", "aten::mm", 30, 60),
        event("cpu_op", "aten::add", 31, 32),  # inside the one before it
        event("cpu_op", "aten::mm", 0, 200, tid=9),  # of another thread
        event(
            "user_annotation", "gloo:all_reduce", 50, 70, tid=9
        ),  # ten of it while the host computes
        event("user_annotation", "gloo:all_reduce", 82, 84, tid=9),
        event("cpu_op", "c10d::allreduce_", 81, 84),  # no work beside it
        {"ph": "M", "name": "process_name"},
    ]
    assert seconds(events) == (
        2,
        {
            "forward": 25 + 90,
            "backward": 50 - 10,
            "communication": 10 + 2,
            "optimizer": 10,
            "waiting for data": 3,
            "logging": 3,
            "other": 200 - 25 - 90 - 40 - 12 - 10 - 3 - 3,
        },
        10,
    )


def test_on_a_gpu_a_kernel_counts_for_the_part_that_launched_it_and_each_moment_once():
    """The host is ahead of the device, and its autograd engine launches from another thread."""
    events = [
        *regions(("ProfilerStep#5", 0, 100), ("forward", 10, 20), ("backward", 20, 30)),
        *regions(("data", 2, 9), ("optimizer", 85, 90), ("logging", 91, 99)),
        *kernel(1, "gemm", 12, 13, 40),
        *kernel(2, "gemm", 25, 40, 70, BACKWARD_THREAD),
        *kernel(3, "ncclDevKernel_AllReduce_Sum_f32", 27, 60, 80, BACKWARD_THREAD),
        *kernel(4, "clip", 82, 83, 84),  # outside of all parts
        *kernel(5, "adamw", 87, 89, 110),  # beyond the host's end of the update
        event("gpu_user_annotation", "forward", 13, 40, GPU),
    ]
    assert seconds(events) == (
        1,
        {
            "forward": 27,
            "backward": 30,
            "communication": 10,
            "optimizer": 21,
            "waiting for data": 7,
            "other": 110 - 27 - 30 - 10 - 21 - 7,
        },
        10,
    )


def test_the_table_adds_up_and_is_per_update():
    events = regions(("ProfilerStep#1", 0, 3000), ("ProfilerStep#2", 3000, 4000), ("data", 0, 1000))
    events += regions(
        ("forward", 2000, 2100), ("forward", 3000, 3900), ("ProfilerStep#3", 4000, 9000)
    )
    text = table(events)
    rows = {line[:32].strip(): line[32:].split() for line in text.splitlines()}
    assert "mean of 2" in text
    assert rows["waiting for data"] == ["0.500", "25.0"]
    assert rows["other"] == ["1.000", "50.0"]
    assert rows["together"] == ["2.000", "100.0"]
    assert "checkpoint" not in rows
    assert set(ALWAYS) <= rows.keys()


def profiled(directory):
    """(rows of the table in ms, events of the trace)."""
    text = (directory / "profile" / "table.txt").read_text()
    rows = re.findall(r"^([a-z ]+?) {2,}([\d.]+) +[\d.]+$", text, re.MULTILINE)
    with gzip.open(directory / "profile" / "trace.json.gz") as file:
        return {name: float(ms) for name, ms in rows}, json.load(file)["traceEvents"]


def test_a_profiled_run_has_its_bits_a_table_and_no_seconds_to_compare(tiny, tmp_path, capsys):
    assert main(tiny) == 0
    plain = metrics(only_run(tmp_path / "runs"))
    runs = tmp_path / "profiled"
    assert main([*tiny, "--log.dir", str(runs), "--log.profile", "6"]) == 0
    directory = only_run(runs)
    assert directory.name == only_run(tmp_path / "runs").name
    assert metrics(directory) == plain
    rows, events = profiled(directory)
    assert "mean of 6" in (directory / "profile" / "table.txt").read_text()
    assert (directory / "profile" / "table.txt").read_text() in capsys.readouterr().out
    names = [e["name"] for e in events if e.get("cat") == "user_annotation"]
    assert names.count("forward") == names.count("backward") == 6 * 4, "micro-batches"
    assert names.count("optimizer") == names.count("data") == names.count("logging") == 6
    assert names.count("evaluation") == 1, "that of step 5"
    together = rows.pop("together")
    assert sum(rows.values()) == pytest.approx(together, abs=0.01)
    times = [x["time/step_ms"] for x in read_metrics(directory) if "train/loss" in x][1:7]
    assert together > sum(times) / 6
    for part in ("forward", "backward", "optimizer", "evaluation", "checkpoint", "logging"):
        assert rows[part] > 0, part
    assert rows["communication"] == 0
    (launch,) = read_record(directory)["launches"]
    assert launch["environment"]["profiled_updates"] == 6


def test_ranks_wait_for_each_other_in_the_row_of_communication(shards, tmp_path):
    flags = ["--log.profile", "4", "--eval.every", "12", "--checkpoint.every", "0"]
    for rank in ranks(command(shards, tmp_path / "runs") + flags, 2):
        finish(rank)
    rows, _ = profiled(only_run(tmp_path / "runs"))
    assert 0 < rows["communication"] < rows["together"]


def test_a_launch_too_short_to_profile_says_so(tiny, tmp_path, capsys):
    assert main([*tiny, "--train.total_steps", "1", "--log.profile", "6"]) == 0
    assert "nothing to profile" in capsys.readouterr().out
    assert not (only_run(tmp_path / "runs") / "profile").exists()


def test_a_trace_that_cannot_be_written_is_a_line_and_no_end_of_the_run(tmp_path):
    (tmp_path / "profile").write_text("in the way")
    said = []
    with Profile(tmp_path, 1, said.append) as profile:
        for _ in range(3):
            with record_function("forward"):
                pass
            profile.step()
    (text,) = said
    assert text.startswith("ms of an update")
    assert "log.profile: this cannot be kept" in text.splitlines()[-1]
