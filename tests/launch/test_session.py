"""What rank 0 does for all ranks, and what all of them compare."""

import shutil
import socket
import struct
from types import SimpleNamespace

import pytest
import torch

from configs import load
from data import DataError
from launch import meeting, session
from launch.process import Process
from record import checkpoints
from tests.jobs import ROOT, command, metrics, only_run, ranks

MINE = {"batches": "b" * 64, "val": "v" * 64}


@pytest.mark.parametrize(
    ("of_rank_0", "found"),
    [
        (MINE, None),
        ({**MINE, "data": "d" * 64}, None),  # which another rank of this node has read
        ({**MINE, "val": "x" * 64}, "the hash of the val text is vvvvvvvv, not xxxxxxxx; copy"),
        ({**MINE, "batches": "x" * 64}, "the hash of the first batches is bbbbbbbb, not xxxxxxxx"),
        ({**MINE, "test": "x" * 64}, "the hash of the test text is none, not xxxxxxxx"),
    ],
)
def test_a_rank_with_other_data_than_rank_0_is_named(of_rank_0, found):
    process = SimpleNamespace(host="node-b", rank=3)
    problem = session._other_data(process, MINE, of_rank_0)
    if found is None:
        assert problem is None
    else:
        assert problem.startswith("node-b (rank 3) has other data in data.dir than rank 0: ")
        assert found in problem


def test_a_node_whose_shards_differ_beyond_the_first_batches_is_named():
    process = SimpleNamespace(host="node-b", rank=8)
    problem = session._other_data(process, MINE | {"data": "e" * 64}, MINE | {"data": "d" * 64})
    assert "node-b (rank 8) has other data" in problem
    assert "the hash of all shards is eeeeeeee, not dddddddd" in problem


def test_a_node_with_other_questions_is_named():
    process = SimpleNamespace(host="node-b", rank=8)
    problem = session._other_data(process, {"hellaswag": "e" * 64}, {"hellaswag": "d" * 64})
    assert problem == (
        "node-b (rank 8) has other data in eval.hellaswag than rank 0: the hash of the questions"
        " is eeeeeeee, not dddddddd; copy the same file to all nodes"
    )


@pytest.mark.parametrize("local_rank", [0, 1])
def test_one_rank_of_a_node_reads_all_shards(local_rank):
    hashes = session.agreed_hashes(
        Process(2, local_rank, 1, torch.device("cpu")), lambda scan: {"data": str(scan)}
    )
    assert hashes == {"data": str(local_rank == 0)}


def test_a_bad_shard_ends_the_ranks_that_wait_for_its_reader():
    def read(scan):
        raise DataError("x.bin: bad")

    with pytest.raises(meeting.RunError, match=r"x\.bin: bad"):
        session.agreed_hashes(Process(0, 0, 1, torch.device("cpu")), read, DataError)


@pytest.mark.parametrize(
    ("mine", "its", "said"),
    [
        ({"device": "H100"}, {"device": "A100"}, "device is A100 there and H100 here; launch.acc"),
        ({"dtype": "bfloat16"}, {"dtype": "float32"}, "bfloat16 here; give --train.dtype"),
        ({"shard a.bin": "5 tokens"}, {}, "shard a.bin is absent there and 5 tokens here; copy"),
        ({"shard a.bin": "5 tokens"}, {"shard a.bin": "6 tokens"}, "is 6 tokens there and 5"),
    ],
)
def test_ranks_with_other_hardware_or_shards_are_told_apart_where_they_meet(mine, its, said):
    me, other = {"host": "alpha", "facts": mine}, {"host": "beta", "facts": its}
    line = meeting._difference(me, 1, other)
    assert line.startswith("beta (rank 1) is not like alpha (rank 0): ")
    assert said in line


# -------------------------------------------------------------------------------- replicas


def bits_of(values):
    """The sum of float32 values read as integers, by struct."""
    return sum(struct.unpack("<i", struct.pack("<f", x))[0] for x in values)


def test_checksum_is_the_sum_of_bit_patterns_and_one_bit_changes_it():
    model = torch.nn.Linear(3, 2)
    values = [x for p in model.parameters() for x in p.flatten().tolist()]
    before = checkpoints.checksum(model)
    assert before == bits_of(values)
    model.weight.data.view(torch.int32)[1, 2] ^= 1
    assert abs(checkpoints.checksum(model) - before) == 1
    half = torch.nn.Linear(3, 2).to(torch.bfloat16)
    before = checkpoints.checksum(half)
    half.weight.data.view(torch.int16)[0, 0] ^= 1
    assert abs(checkpoints.checksum(half) - before) == 1


@pytest.mark.parametrize(
    ("sums", "said"),
    [
        ([-5, -5], None),
        ([7, 8], "of rank 1 on beta are not those of rank 0 on alpha: "),
        ([7, 8, 8], "of rank 0 on alpha are not those of rank 1 on beta and 1 more: "),
        ([7, 8, 7, 9], "of rank 1 on beta, 3 on delta are not those of rank 0 on alpha and 1 "),
    ],
)
def test_ranks_whose_weights_differ_from_most_are_named(sums, said):
    hosts = ["alpha", "beta", "gamma", "delta"]
    process = SimpleNamespace(
        world_size=len(sums), each=lambda _: sums, heartbeat=SimpleNamespace(hosts=hosts)
    )
    given = process, load([]), torch.nn.Linear(1, 1), 40
    if said is None:
        session.require_equal_replicas(*given)
        return
    with pytest.raises(meeting.RunError, match="stopped at step 40: the weights") as caught:
        session.require_equal_replicas(*given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# Two nodes of one rank each, the second with something of its own.
NODE = """
import os, sys
sys.path.insert(0, {root!r})
import torch, train_gpt2
from data import open_splits
os.environ["LOCAL_RANK"] = "0"
if os.environ["RANK"] == "1":
    {own}
sys.exit(train_gpt2.main(sys.argv[1:]))
"""
FLIPS_A_BIT = """
    def flipping(run, state, *rest, measure=train_gpt2.measure):
        if rest[-1] == 10:
            state.model.h[1].mlp.c_fc.weight.data.view(torch.int32)[3, 5] ^= 1
        return measure(run, state, *rest)
    train_gpt2.measure = flipping
"""
READS_ELSEWHERE = """
    train_gpt2.open_splits = lambda _, **given: open_splits({folder!r}, **given)
"""


def errors_of_two(shards, tmp_path, own):
    """What two such nodes say on their way to exit code 2."""
    script = tmp_path / "node.py"
    script.write_text(NODE.format(root=str(ROOT), own=own.strip()))
    both = ranks(command(shards, tmp_path / "runs"), 2, program=str(script))
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [2, 2], outputs
    lines = [[x for x in o.splitlines() if x.startswith("error: ")] for o in outputs]
    assert lines[0] == lines[1]
    (line,) = lines[0]
    return line


def test_a_replica_in_which_one_bit_has_flipped_ends_the_run(shards, tmp_path):
    line = errors_of_two(shards, tmp_path, FLIPS_A_BIT)
    host = socket.gethostname()
    said = f"stopped at step 10: the weights of rank 1 on {host} are not those of rank 0 on {host}"
    assert said in line
    lines = metrics(only_run(tmp_path / "runs"))
    assert [x["step"] for x in lines if "val/loss" in x] == [0, 5]


def test_a_node_with_one_other_bit_in_a_late_shard_ends_the_run_before_it_begins(shards, tmp_path):
    folder = tmp_path / "tokens"
    shutil.copytree(shards, folder)
    late = folder / "tiny_train_000001.bin"
    content = bytearray(late.read_bytes())
    content[-2] ^= 1  # of the last token, which is in no sequence
    late.write_bytes(content)
    line = errors_of_two(shards, tmp_path, READS_ELSEWHERE.format(folder=str(folder)))
    assert "(rank 1) has other data in data.dir than rank 0: the hash of all shards is" in line
    assert not (tmp_path / "runs").exists()
