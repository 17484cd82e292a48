"""Micro-batches that fit, and what is said where memory does not suffice."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from configs import Batch, Config, load
from launch import memory
from launch.meeting import RankError, RunError
from launch.process import Process
from record.runlog import NoLog

TOO_MUCH = 2**52  # bytes: no machine has them


@dataclass(frozen=True)
class Run:
    config: Config
    process: Process
    batch: Batch


def run_of(flags=()):
    config = load(["configs/quickstart.toml", *flags])
    return Run(config, Process(0, 0, 1, torch.device("cpu")), Batch.divide(config, 1))


def state():
    model = torch.nn.Linear(3, 3)
    return SimpleNamespace(
        model=model, compiled=model, ddp_model=model, optimizer=None, dtype="float32"
    )


def passes_of_at_most(rows, tried):
    """A warm-up that asks the real allocator for too much if a micro-batch is larger."""

    def warm_up(run, state):
        tried.append(run.batch.micro)
        if run.batch.micro > rows:
            torch.empty(TOO_MUCH, dtype=torch.uint8)

    return warm_up


AUTO = ["--train.micro_batch_size", "auto"]


def found(flags=AUTO, log=None, most=10**6, tried=None, to_come=0):
    tried = [] if tried is None else tried
    given = run_of(flags), state(), log or NoLog(), lambda *_: to_come
    return memory.fitted(*given, passes_of_at_most(most, tried)).micro


def test_auto_takes_the_whole_share_of_a_rank_where_it_fits():
    tried = []
    assert found(tried=tried) == run_of(AUTO).batch.rows == 32
    assert tried == [32]


@pytest.mark.parametrize(("most", "micro"), [(16, 16), (5, 4), (1, 1)])
def test_auto_halves_until_the_passes_succeed(most, micro):
    assert found(most=most) == micro


def test_one_sequence_that_does_not_fit_is_one_line_with_what_to_change():
    with pytest.raises(
        RunError, match=r"one sequence.*--train.activation_checkpointing true$"
    ) as e:
        found(most=0)
    assert "\n" not in str(e.value)


def test_passes_are_tried_beside_what_the_optimizer_will_keep():
    with pytest.raises(RunError, match="out of memory"):
        found(to_come=TOO_MUCH)


def test_auto_starts_from_what_a_count_says_fits(monkeypatch):
    """32 sequences of quickstart's model keep far more than 100 MB."""
    monkeypatch.setattr(memory, "available_memory", lambda: 100 * 2**20)
    tried = []
    micro = found(tried=tried)
    assert tried == [micro]
    assert 1 < micro < 32


def test_a_later_launch_takes_the_size_of_the_one_before(capsys):
    launches = [{"environment": {"micro_batch_size": 8}}, {"host": "torn"}]
    log = SimpleNamespace(facts={"launches": launches})
    assert found(log=log) == 8
    assert capsys.readouterr().out == ""
    assert found(log=log, most=4) == 4
    assert "4 sequences, 8 in the last launch" in capsys.readouterr().out


def test_a_number_is_taken_as_it_is():
    assert found(["--train.micro_batch_size", "8"], most=0) == 8


def test_an_error_that_is_no_lack_of_memory_is_not_taken_for_one():
    def broken(run, state):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        memory.fitted(run_of(AUTO), state(), NoLog(), lambda *_: 0, broken)


@pytest.mark.parametrize(
    ("flags", "remedy"),
    [
        (["--train.micro_batch_size", "32"], "--train.micro_batch_size 16"),
        (["--train.batch_tokens", "3840", "--train.micro_batch_size", "30"], "_size 15"),
        (["--train.micro_batch_size", "1"], "--train.activation_checkpointing true"),
        (
            ["--train.micro_batch_size", "1", "--train.activation_checkpointing", "true"],
            "(--train.shard_optimizer true)",
        ),
    ],
)
def test_out_of_memory_names_the_key_and_its_next_value(flags, remedy):
    run = run_of(flags)
    with pytest.raises(RankError) as caught, memory.explained(run.config, run.batch):
        torch.empty(TOO_MUCH, dtype=torch.uint8)
    assert "(4.19e+06 GiB more were asked for)" in str(caught.value)
    assert str(caught.value).endswith(remedy)
    assert "\n" not in str(caught.value)


def test_memory_that_numpy_asks_for_is_explained_like_that_of_torch():
    run = run_of(["--train.micro_batch_size", "32"])
    what = pytest.raises(RankError, match=r"PiB more were asked for.*_size 16$")
    with what as caught, memory.explained(run.config, run.batch):
        np.empty(TOO_MUCH, dtype=np.uint8)
    assert isinstance(caught.value.__cause__, MemoryError)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
    ],
)
def test_what_a_gpu_or_python_says_of_its_memory_is_understood(error):
    assert memory.is_out_of_memory(error)
    what = pytest.raises(RankError, match="the model and its optimizer do not fit")
    with what, memory.explained(run_of().config):
        raise error


@pytest.mark.parametrize(
    ("flags", "places"),
    [
        ([], ["on a CPU", "on a GPU"]),
        (["--train.device", "cpu"], ["on a CPU"]),
        (["--train.device", "cuda"], ["on a GPU"]),
    ],
)
def test_estimates_are_comments_one_for_each_device_that_may_be_meant(monkeypatch, flags, places):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lines = memory.estimates(load(flags), 8 * 124_439_808).splitlines()
    assert [line.split(" ", 2)[2][: len("on a CPU")] for line in lines] == places
    assert all(line.startswith("# memory: ") for line in lines)


def test_estimate_of_gpt2_124m_on_a_gpu():
    """By hand: 0.46 GiB of weights in float32 and half of it in bfloat16; 0.93 GiB of moments."""
    (line,) = memory.estimates(load(["--train.device", "cuda"]), 8 * 124_439_808).splitlines()
    assert "weights 0.695, gradients 0.464, optimizer 0.927" in line
    assert "with 64 sequences in a forward pass" in line
