"""Memory that does not suffice, for real: the operating system limits the address space."""

import sys

import pytest

from record.runlog import read_record
from tests.jobs import ROOT, command, finish, only_run, ranks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, limits addresses")

LIMITED = f"""
import ctypes, os, resource, sys
ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX: glibc reserves addresses for each thread
sys.path.insert(0, {str(ROOT)!r})
import train_gpt2
from data import Prefetcher
# rank and step from which a limit holds (-1: before the model is there); bytes above what is used
RANK, STEP, MORE = (int(word) for word in sys.argv[1:4])

def limit():
    used = next(x for x in open("/proc/self/status") if x.startswith("VmSize"))
    used = 1024 * int(used.split()[1])
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE, resource.RLIM_INFINITY))

take, seen = Prefetcher.__next__, []
def taken(self):
    seen.append(0)
    if len(seen) == STEP and mine:
        limit()
    return take(self)

mine = int(os.environ.get("RANK", 0)) == RANK
Prefetcher.__next__ = taken
if STEP < 0 and mine:
    limit()
sys.exit(train_gpt2.main(sys.argv[4:]))
"""

# The logits of 64 sequences of 32 tokens take 412 MB, and a backward pass three times as much.
LARGE = ["--model.vocab_size", "50257", "--eval.tokens", "1024"]
LARGE += ["--checkpoint.every", "0", "--eval.every", "5"]


@pytest.fixture
def limited(shards, tmp_path):
    """Starts ranks of which one has a limit; returns them."""
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)

    def start(world_size, rank, step, megabytes, micro, steps=3):
        limits = [str(rank), str(step), str(megabytes * 2**20)]
        size = {"micro_batch_size": micro, "total_steps": steps, "batch_tokens": world_size * 2048}
        flags = [word for key, value in size.items() for word in (f"--train.{key}", str(value))]
        given = [*command(shards, tmp_path / "runs"), *LARGE, *flags]
        return ranks([*limits, *given], world_size, program=str(script))

    return start


def ends(processes):
    """Exit codes and error lines."""
    outputs = [process.communicate(timeout=90)[0] for process in processes]
    lines = [x for output in outputs for x in output.splitlines() if x.startswith("error: ")]
    assert not any("Traceback" in output for output in outputs), outputs
    return [process.returncode for process in processes], lines


def test_a_process_names_the_key_and_ends_with_code_2(limited):
    codes, (line,) = ends(limited(1, rank=0, step=-1, megabytes=500, micro="64"))
    assert codes == [2]
    assert "micro-batches of 64 sequences" in line
    assert line.endswith("give --train.micro_batch_size 32")


def test_a_rank_whose_memory_runs_out_later_ends_the_others_with_its_line(limited, host):
    codes, lines = ends(limited(2, rank=1, step=2, megabytes=100, micro="32"))
    assert codes == [2, 2]
    (line,) = lines
    assert line.startswith(f"error: rank 1 on {host}: out of memory")
    assert line.endswith("give --train.micro_batch_size 16")


def test_auto_finds_what_fits_every_rank_and_a_later_launch_keeps_it(limited, tmp_path):
    """Only rank 1 has a limit; the second launch has none, and would fit 64 sequences."""
    for process in limited(2, rank=1, step=-1, megabytes=550, micro="auto", steps=1):
        output = finish(process)
    run = only_run(tmp_path / "runs")
    (launch,) = read_record(run)["launches"]
    micro = launch["environment"]["micro_batch_size"]
    assert 1 <= micro < 64
    (run / "summary.json").unlink()  # as killed after the last update
    for process in limited(2, rank=-1, step=-1, megabytes=0, micro="auto", steps=1):
        output += finish(process)
    again = read_record(run)["launches"][1]["environment"]
    assert again["start_step"] == 1
    assert again["micro_batch_size"] == micro
    assert f"x {micro} sequences x 32" in output
