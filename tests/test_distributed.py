"""The number of processes and the size of micro-batches do not change what is trained."""

from functools import partial

import numpy as np
import pytest
import torch

from data import Loader, open_split
from record import checkpoints
from record.runlog import read_metrics, read_record, read_summary
from tests.jobs import ROOT, assert_same, command, finish, only_run, ranks, result
from train_gpt2 import main


def train(shards, runs, nproc, micro, steps=20, flags=(), **how):
    length = ["--train.total_steps", str(steps), "--train.micro_batch_size", str(micro)]
    arguments = [*command(shards, runs), *length, *flags]
    if nproc:
        for rank in ranks(arguments, nproc, **how):
            finish(rank)
    else:
        assert main(arguments) == 0
    directory = only_run(runs)
    lines = read_metrics(directory)
    return {
        "hashes": read_record(directory)["hashes"],
        "train": [x["train/loss"] for x in lines if "train/loss" in x],
        "norm": [x["train/grad_norm"] for x in lines if "train/loss" in x],
        "val": [x["val/loss"] for x in lines if "val/loss" in x],
        "tokens": [x["tokens"] for x in lines if "train/loss" in x],
    }


@pytest.mark.parametrize(("nproc", "micro"), [(2, 8), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_rows_that_the_ranks_are_given_make_up_the_same_global_batches(
    shards, tmp_path, nproc, micro
):
    """Written down where the loop takes them, by each rank for itself."""
    script = tmp_path / "spy.py"
    script.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import train_gpt2\n"
        "from data import Prefetcher\n"
        "take = Prefetcher.__next__\n"
        "def spy(self):\n"
        "    rows = take(self)\n"
        f"    with open({str(tmp_path)!r} + '/rank' + os.environ.get('RANK', '0'), 'ab') as file:\n"
        "        file.write(rows.numpy().tobytes())\n"
        "    return rows\n"
        "Prefetcher.__next__ = spy\n"
        "sys.exit(train_gpt2.main(sys.argv[1:]))\n"
    )
    flags = ["--train.micro_batch_size", str(micro), "--train.total_steps", "6"]
    for rank in ranks(command(shards, tmp_path / "runs") + flags, nproc, program=str(script)):
        finish(rank)
    tokens = open_split(shards, "train", vocab_size=256)
    loader = Loader(tokens, block_size=32, batch_size=16, data_seed=1)
    seen = [np.fromfile(tmp_path / f"rank{r}", dtype="<i8") for r in range(nproc)]
    seen = [rows.reshape(6, 16 // nproc, 33) for rows in seen]
    for step in range(6):
        batch = np.concatenate([rows[step] for rows in seen])
        assert np.array_equal(batch, loader.global_batch(step))


def test_ddp_is_gone_before_its_process_group(shards, tmp_path):
    """Otherwise gloo's destructor now and then waits for ever for a rank that has left."""
    script = tmp_path / "spy.py"
    script.write_text(
        "import gc, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch.distributed as dist\n"
        "import train_gpt2\n"
        "from torch.nn.parallel import DistributedDataParallel as DDP\n"
        "destroy = dist.destroy_process_group\n"
        "def spy():\n"
        "    print('alive', sum(type(x) is DDP for x in gc.get_objects()))\n"
        "    destroy()\n"
        "dist.destroy_process_group = spy\n"
        "sys.exit(train_gpt2.main(sys.argv[1:]))\n"
    )
    for rank in ranks(command(shards, tmp_path / "runs"), 2, program=str(script)):
        assert "alive 0\n" in finish(rank)


def test_sharing_the_optimizers_work_changes_no_bit_of_a_run_nor_of_a_resumed_one(shards, tmp_path):
    muon = ["--optimizer.name", "muon", "--optimizer.lr", "1e-3"]
    measured = []  # without changing a bit
    for setting in ("false", "true", "true"):
        runs = tmp_path / setting
        if runs.exists():  # as killed after the checkpoint of step 8
            directory = only_run(runs)
            checkpoints.found(directory / "checkpoints")[0].unlink()
            (directory / "summary.json").unlink()
        given = [*command(shards, runs), *muon, "--train.shard_optimizer", setting]
        given += ["--diagnose.every", "3"] if setting == "true" else []
        for rank in ranks(given, 2):
            finish(rank)
        if setting == "true":
            measured.append((only_run(runs) / "diagnose.jsonl").read_text())
        summary = read_summary(only_run(runs))
        whole = read_summary(only_run(tmp_path / "false"))["optimizer_state_bytes"][0]
        copies = 2 if setting == "false" else 1
        assert sum(summary["optimizer_state_bytes"]) == pytest.approx(copies * whole)
        each = whole / summary["parameters"]
        assert summary["optimizer_state_bytes_per_parameter"] == pytest.approx(each)
        lines, state = result(runs)
        plain = [{k: v for k, v in x.items() if not k.startswith("inside/")} for x in lines]
        assert_same(result(tmp_path / "false"), (plain, state))
    assert measured[0] == measured[1]
    assert len(measured[0].splitlines()) == 5  # the names, and updates 0, 3, 6 and 9


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory):
    return train(shards, tmp_path_factory.mktemp("alone"), nproc=0, micro=16)


@pytest.mark.parametrize(
    ("nproc", "micro"),
    [
        (0, 4),
        (1, 16),
        (2, 4),
        pytest.param(4, 2, marks=pytest.mark.slow),
        pytest.param(8, 2, marks=pytest.mark.slow),
    ],
)
def test_ranks_and_micro_batches_see_the_same_tokens_and_agree(
    shards, tmp_path, alone, nproc, micro
):
    other = train(shards, tmp_path / "runs", nproc, micro)
    assert other["hashes"] == alone["hashes"]
    assert other["tokens"] == alone["tokens"]
    assert other["train"] == pytest.approx(alone["train"], abs=1e-4)
    assert other["val"] == pytest.approx(alone["val"], abs=1e-4)
    assert other["norm"] == pytest.approx(alone["norm"], rel=1e-3)
    assert alone["train"][0] - alone["train"][-1] > 0.5  # it does learn


def test_logits_are_clipped_by_the_largest_over_ranks_and_micro_batches(shards, tmp_path):
    """With a tau that every head is above, and a clip every second step."""
    flags = ["--optimizer.name", "muonclip", "--optimizer.tau", "0.01"]
    flags += ["--optimizer.clip_every", "2"]
    logits = {}
    for nproc, micro in ((0, 16), (2, 4)):
        runs = tmp_path / f"{nproc}"
        train(shards, runs, nproc, micro, steps=5, flags=flags)
        lines = [x for x in read_metrics(only_run(runs)) if "train/loss" in x]
        logits[nproc] = [x["optimizer/largest_logit"] for x in lines[::2]]
        held = [x["optimizer/largest_logit"] for x in lines[1::2]]
        assert held == logits[nproc][: len(held)], "until the next clip"
    assert logits[2] == pytest.approx(logits[0], rel=1e-4)
    assert 0.01 < logits[0][0] > logits[0][1], "clipped"


def test_another_data_seed_is_another_order_of_the_same_weights(shards, tmp_path, alone):
    main([*command(shards, tmp_path / "runs"), "--data_seed", "2"])
    hashes = read_record(only_run(tmp_path / "runs"))["hashes"]
    assert hashes["weights"] == alone["hashes"]["weights"]
    assert hashes["batches"] != alone["hashes"]["batches"]


def test_another_seed_is_other_weights_in_the_same_order_of_data(shards, tmp_path, alone):
    main([*command(shards, tmp_path / "runs"), "--seed", "2"])
    hashes = read_record(only_run(tmp_path / "runs"))["hashes"]
    assert hashes["weights"] != alone["hashes"]["weights"]
    assert hashes["batches"] == alone["hashes"]["batches"]


def test_each_rank_trains_on_its_own_slice(shards, tmp_path, alone):
    """If both ranks took the same rows, the mean loss of the first step would differ."""
    two = train(shards, tmp_path / "runs", nproc=2, micro=8, steps=1)
    assert two["train"][0] == pytest.approx(alone["train"][0], abs=1e-6)
    assert two["norm"][0] == pytest.approx(alone["norm"][0], rel=1e-4)


# Inductor takes 25 s of CPU time to call its C++ compiler; what it compiles is torch's to test.
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_run_agrees_with_the_eager_one_and_compiles_outside_the_clock(
    shards, tmp_path, monkeypatch, backend
):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    losses = []
    for compiled in ("true", "false"):
        runs = tmp_path / compiled
        small = ["--model.n_layer", "1", "--train.compile", compiled]
        torch._dynamo.utils.counters.clear()
        assert main(command(shards, runs) + small) == 0
        lines = [x for x in read_metrics(only_run(runs)) if "tokens" in x]
        losses.append([x["train/loss"] for x in lines])
        if compiled == "true":
            # With gradients, in the pass before the clock, and without, in the first evaluation.
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_compiled_model_under_ddp_agrees_with_the_plain_one(shards, tmp_path, alone):
    """Torch splits the graph at DDP's buckets; the evaluation is a graph of its own."""
    script = tmp_path / "compiled.py"
    script.write_text(
        "import functools, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch, train_gpt2\n"
        "from torch._dynamo.utils import counters\n"
        "from launch import process\n"
        "torch.compile = functools.partial(torch.compile, backend='aot_eager')\n"
        "torch.distributed._DEFAULT_FIRST_BUCKET_BYTES = 20_000\n"
        "ddp = process.DistributedDataParallel\n"
        "process.DistributedDataParallel = functools.partial(ddp, bucket_cap_mb=0.03)\n"
        "code = train_gpt2.main(sys.argv[1:])\n"
        f"open({str(tmp_path / 'graphs')!r}, 'w').write(str(counters['stats']['unique_graphs']))\n"
        "sys.exit(code)\n"
    )
    compiled = ["--train.compile", "true"]
    two = train(shards, tmp_path / "runs", 2, 4, flags=compiled, program=str(script))
    assert two["train"] == pytest.approx(alone["train"], abs=1e-4)
    assert two["norm"] == pytest.approx(alone["norm"], rel=1e-3)
    assert two["val"] == pytest.approx(alone["val"], abs=1e-4)
    assert int((tmp_path / "graphs").read_text()) == 2


@pytest.mark.slow
def test_bfloat16_weights_under_ddp_and_compiled_train_as_in_one_process(shards, tmp_path):
    script = tmp_path / "compiled.py"
    script.write_text(
        "import functools, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch, train_gpt2\n"
        "compiled = torch.compile\n"
        "torch.compile = lambda f, **_: compiled(f, backend='aot_eager', dynamic=False)\n"
        "sys.exit(train_gpt2.main(sys.argv[1:]))\n"
    )
    flags = ["--train.dtype", "bfloat16-weights"]
    one = train(shards, tmp_path / "one", 0, 4, flags=flags)
    flags += ["--train.compile", "true"]
    two = train(shards, tmp_path / "two", 2, 4, flags=flags, program=str(script))
    for name in ("train", "val", "norm"):
        assert two[name] == pytest.approx(one[name], rel=1e-3)


def test_gradients_sent_in_bfloat16_train_alike_and_are_recorded(shards, tmp_path, alone):
    flags = ["--train.gradient_dtype", "bfloat16"]
    two = train(shards, tmp_path / "runs", 2, 8, flags=flags)
    assert two["train"] == pytest.approx(alone["train"], abs=0.02)
    assert two["train"] != pytest.approx(alone["train"], abs=1e-5)
    text = (only_run(tmp_path / "runs") / "config.toml").read_text()
    assert 'gradient_dtype = "bfloat16"' in text


def test_gradients_of_one_rank_are_sent_nowhere(shards, tmp_path, capsys):
    flags = ["--train.gradient_dtype", "bfloat16"]
    assert main(command(shards, tmp_path / "runs") + flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "this run has one; leave it out, or start several" in line


def test_bfloat16_trains_close_to_float32(shards, tmp_path, alone):
    arguments = ["--train.total_steps", "20", "--train.dtype", "bfloat16"]
    assert main(command(shards, tmp_path / "runs") + arguments) == 0
    losses = [x["train/loss"] for x in read_metrics(only_run(tmp_path / "runs")) if "tokens" in x]
    assert losses == pytest.approx(alone["train"], abs=0.1)
    assert losses != pytest.approx(alone["train"], abs=1e-6)
    assert read_summary(only_run(tmp_path / "runs"))["status"] == "finished"
