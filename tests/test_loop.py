"""What the loop says and records besides the losses, and what it hands to others."""

import hashlib
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import optim
import train_gpt2
from configs import load
from data import Loader, Prefetcher, open_split
from launch import session, updates
from record import checkpoints, hardware, screen
from record.runlog import read_metrics, read_record, read_summary
from tests.jobs import only_run
from tests.test_resume import interrupted
from train_gpt2 import GPT, main


def lines_of(runs):
    return [line for line in read_metrics(only_run(runs)) if "train/loss" in line]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mfu_is_the_share_of_the_devices_peak(tiny, tmp_path, monkeypatch, dtype):
    asked = []

    def peak(name, of):
        asked.append((name, of))
        return 1e9

    monkeypatch.setattr(hardware, "peak_flops", peak)
    assert main([*tiny, "--train.dtype", dtype, "--train.total_steps", "3"]) == 0
    assert asked == [("cpu", dtype)]
    summary = read_summary(only_run(tmp_path / "runs"))
    assert summary["run"] == only_run(tmp_path / "runs").name
    n = 256 * 32 + 2 * 12_704 + 64  # without the positions
    assert summary["flops_per_token"] == 6 * n + 12 * 2 * 32 * 32
    for line in lines_of(tmp_path / "runs"):
        done = summary["flops_per_token"] * 512 / (line["time/step_ms"] / 1e3)
        assert line["mfu"] == pytest.approx(done / 1e9)


def test_the_screen_shows_what_is_recorded(tiny, tmp_path, capsys):
    assert main([*tiny, "--log.print_every", "6"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    expected = []
    for line in read_metrics(only_run(tmp_path / "runs")):
        if "val/loss" in line:
            expected.append(f"step {line['step']}/12  val loss {line['val/loss']:.4f}")
        elif line["step"] in (5, 11):
            ms, speed = line["time/step_ms"], line["tokens_per_second"]
            expected.append(
                f"step {line['step'] + 1}/12  loss {line['train/loss']:.4f}  "
                f"norm {line['train/grad_norm']:.3f}  lr {line['train/lr']:.2e}  {ms:.0f} ms  "
                f"{speed:,.0f} tok/s  {(11 - line['step']) * ms / 1e3:.0f} s left"
            )
    assert shown == expected


def test_a_resumed_bar_begins_where_the_run_goes_on(tiny, monkeypatch):
    bars, begin = [], screen.Screen.__init__

    def kept(self, *arguments):
        bars.append(arguments)
        begin(self, *arguments)

    monkeypatch.setattr(screen.Screen, "__init__", kept)
    assert interrupted(tiny, at=5) == 0
    assert main(tiny) == 0
    assert bars == [(12, 0, 20, True), (12, 6, 20, True)]


def test_a_stopped_run_has_one_checkpoint_more_and_says_who_asked(tiny, tmp_path, capsys):
    assert interrupted(tiny, at=5) == 0
    assert "stopped by SIGTERM at step 6; the same command resumes there" in capsys.readouterr().out
    directory = only_run(tmp_path / "runs")
    found = [checkpoints.step_of(path) for path in checkpoints.found(directory / "checkpoints")]
    assert found == [6, 4]
    assert read_summary(directory)["status"] == "stopped"
    assert [line["step"] for line in lines_of(tmp_path / "runs")] == list(range(6))
    assert main([*tiny]) == 0
    assert [line["step"] for line in lines_of(tmp_path / "runs")] == list(range(12))
    val = [x["step"] for x in read_metrics(directory) if "val/loss" in x]
    assert val == [0, 5, 10, 12]


@pytest.mark.parametrize(("every", "steps"), [(0, [12]), (5, [12, 10, 5]), (12, [12])])
def test_checkpoints_are_written_when_due_and_at_the_end(tiny, tmp_path, every, steps):
    assert main([*tiny, "--checkpoint.every", str(every), "--checkpoint.keep", "9"]) == 0
    directory = only_run(tmp_path / "runs") / "checkpoints"
    assert [checkpoints.step_of(path) for path in checkpoints.found(directory)] == steps


def test_a_run_that_begins_at_a_checkpoint_does_not_write_it_again(tiny, tmp_path, monkeypatch):
    assert interrupted(tiny, at=7) == 0  # it stops after one update more; 8 is due, too
    saved, save = [], session.save_checkpoint

    def counted(process, config, log, state, *, wait):
        saved.append(state.progress.step)
        save(process, config, log, state, wait=wait)

    monkeypatch.setattr(session, "save_checkpoint", counted)
    assert main(tiny) == 0
    assert saved == [12]


def test_pinned_memory_is_for_a_gpu(tiny, monkeypatch):
    asked, batches = [], train_gpt2.Loader.batches

    def kept(self, start_step, *, pin_memory):
        asked.append((start_step, pin_memory))
        return batches(self, start_step, pin_memory=pin_memory)

    monkeypatch.setattr(train_gpt2.Loader, "batches", kept)
    assert main(tiny) == 0
    assert asked == [(0, torch.cuda.is_available())]


# -------------------------------------------------------------------------- before the first step


def test_the_record_says_what_each_launch_runs_on(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    began = time.perf_counter()
    assert interrupted(tiny, at=5) == 0
    wall = time.perf_counter() - began
    first = capsys.readouterr().out.splitlines()
    assert main(tiny) == 0
    second = capsys.readouterr().out.splitlines()
    directory = only_run(tmp_path / "runs")
    assert first[0] == f"run       {directory}"
    assert second[0] == f"run       {directory}, from step 6"
    assert (
        first[1:3]
        == second[1:3]
        == [
            "model     34,688 parameters, float32, math, on cpu",
            "batch     512 tokens = 1 ranks x 4 micro-batches x 4 sequences x 32",
        ]
    )
    assert first[3].endswith(": 0.15 epochs; 2,048 val tokens, 2,048 test tokens")
    assert first[4].startswith("optimizer adamw: lr 0.003, betas 0.9,0.95, weight_decay 0.1 (")
    assert first[5].startswith("schedule  cosine: warmup_steps 0.05, min_lr_ratio 0.1 (")

    record = read_record(directory)
    for launch, step in zip(record["launches"], (0, 6), strict=True):
        facts = launch["environment"]
        assert (facts["dtype"], facts["world_size"], facts["start_step"]) == ("float32", 1, step)
        assert 0 < facts["warm_up_seconds"] < wall
        assert "host" in facts
        assert facts["eval_tokens"] == {"val": 2048, "test": 2048}
    weights = GPT.initialised(load(tiny).model, seed=1).state_dict()
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].numpy().tobytes())
    assert record["hashes"]["weights"] == digest.hexdigest()
    tokens = open_split(load(tiny).data.dir, "train", vocab_size=256)
    loader = Loader(tokens, block_size=32, batch_size=16, data_seed=1)
    batches = b"".join(loader.global_batch(step).tobytes() for step in range(3))
    assert record["hashes"]["batches"] == hashlib.sha256(batches).hexdigest()
    for split in ("val", "test"):  # the first 64 sequences of 32 tokens, each with its last target
        tokens = open_split(load(tiny).data.dir, split, vocab_size=256).shards[0]
        text = b"".join(tokens[i : i + 33].tobytes() for i in range(0, 2048, 32))
        assert record["hashes"][split] == hashlib.sha256(text).hexdigest()


def test_headerless_shards_train_when_asked_for(tiny, shards, tmp_path):
    folder = tmp_path / "headerless"
    folder.mkdir()
    for split in ("train", "val"):
        raw = (shards / f"tiny_{split}_000000.bin").read_bytes()[1024:]
        (folder / f"{split}.bin").write_bytes(raw)
    assert main([*tiny, "--data.dir", str(folder), "--data.format", "nanogpt"]) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_multiplies_float32_as_this_processor_does_best(tiny, dtype):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert main([*tiny, "--train.dtype", dtype, "--train.total_steps", "1"]) == 0
        assert torch.get_float32_matmul_precision() == optim.matmul_precision("cpu", tf32=True)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("has", [{"avx512_bf16": True}, {"amx_bf16": True}])
def test_the_opening_lines_say_where_bfloat16_would_be_faster(tiny, monkeypatch, capsys, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    short = ["--train.total_steps", "1"]
    assert main([*tiny, *short]) == 0
    assert ("--train.dtype bfloat16" in capsys.readouterr().out) == ("amx_bf16" in has)
    assert main([*tiny, *short, "--train.dtype", "float32"]) == 0
    assert "bfloat16" not in capsys.readouterr().out


def test_ctrl_c_before_the_first_update_ends_the_run_at_once(tiny, tmp_path, monkeypatch, capsys):
    """Here while it compiles: after the first update, it would be minutes later."""
    reached = []

    def warm_up(run, state):
        signal.raise_signal(signal.SIGINT)
        reached.append(run)

    with monkeypatch.context() as patch:
        patch.setattr(train_gpt2, "warm_up", warm_up)
        assert main(tiny) == 128 + signal.SIGINT
    assert not reached
    assert capsys.readouterr().err == "stopped by SIGINT; the same command begins again\n"
    assert main(tiny) == 0
    assert "from step" not in capsys.readouterr().out


def test_the_recorded_peak_of_memory_is_that_of_the_loop(tiny, tmp_path, monkeypatch):
    def warm_up(run, state):
        np.ones(2**27)  # 1 GiB, touched and freed
        return 1.0

    before = hardware.peak_memory_gib(torch.device("cpu"))
    monkeypatch.setattr(train_gpt2, "warm_up", warm_up)
    assert main(tiny) == 0
    assert all(x["memory/peak_gib"] < before + 0.5 for x in lines_of(tmp_path / "runs"))


@pytest.mark.parametrize(("start", "passes"), [(0, ["int64", "float32"]), (10, ["int64"])])
def test_the_warm_up_makes_the_passes_of_the_loop_and_leaves_no_gradient(start, passes):
    """Labels are drawn at steps 0 and 9, so that a run that resumes at 10 needs no such pass."""
    seen, model = [], torch.nn.Linear(1, 1)

    def forward(tokens, targets):
        seen.append(str(targets.dtype).removeprefix("torch."))
        assert tokens.shape == targets.shape == (4, 32)
        assert tokens.dtype == torch.int64
        return model(torch.ones(1, 1)).sum()

    synchronized = []
    process = SimpleNamespace(
        device=torch.device("cpu"), synchronize=lambda: synchronized.append(warmed[:]), max=None
    )
    warmed = []
    optimizer = SimpleNamespace(
        curvature_due=lambda step: step % 9 == 0,
        logits_due=lambda step: False,
        update_logits=lambda largest: None,
        warm_up=lambda: warmed.append(model.weight.grad),
    )
    run = SimpleNamespace(
        process=process,
        batch=SimpleNamespace(micro=4),
        config=SimpleNamespace(
            model=SimpleNamespace(block_size=32), train=SimpleNamespace(total_steps=12)
        ),
    )
    state = SimpleNamespace(
        ddp_model=forward,
        model=model,
        optimizer=optimizer,
        autocast=torch.autocast("cpu", enabled=False),
        progress=SimpleNamespace(step=start),
    )
    assert 0 < train_gpt2.warm_up(run, state) < 10
    assert seen == passes
    assert synchronized == [[None]]  # gradients were gone before the optimizer warmed up


# ------------------------------------------------------------------------------------- its clock


def test_every_duration_is_taken_where_its_name_says(tiny, tmp_path, monkeypatch):
    """With a clock that ticks once a look: what lies between two looks is one second."""
    ticks, take = iter(range(10**6)), Prefetcher.__next__

    def waited(self):
        batch = take(self)
        self.wait_seconds = 0.25
        return batch

    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr(train_gpt2, "time", clock)
    monkeypatch.setattr(updates, "time", clock)
    monkeypatch.setattr(Prefetcher, "__next__", waited)
    assert main(tiny) == 0
    for line in read_metrics(only_run(tmp_path / "runs")):
        if "val/loss" in line:
            assert line["time/eval_seconds"] == 1.0
            continue
        # the start, before and after the optimizer's step, the end
        assert (line["time/step_ms"], line["time/optimizer_ms"]) == (3000.0, 1000.0)
        assert line["time/data_wait_ms"] == 250.0
        assert line["time/train_seconds"] == 3.0 * (line["step"] + 1)
        assert line["tokens_per_second"] == 512 / 3


def test_labels_are_drawn_from_the_steps_own_numbers_where_curvature_is_due(tiny, monkeypatch):
    calls, backward = [], train_gpt2.backward

    def kept(run, state, rows, uniform=None):
        calls.append((state.progress.step, uniform))
        return backward(run, state, rows, uniform)

    monkeypatch.setattr(train_gpt2, "backward", kept)
    flags = ["--optimizer.name", "sophia_g", "--optimizer.k", "4", "--train.total_steps", "6"]
    assert main([*tiny, *flags]) == 0
    drawn = {step: uniform for step, uniform in calls if uniform is not None}
    assert [step for step, _ in calls] == [0, 0, 1, 2, 3, 4, 4, 5]
    assert list(drawn) == [0, 4]
    for uniform in drawn.values():
        assert uniform.shape == (16, 32)
        assert 0 <= uniform.min() < 0.01 < 0.99 < uniform.max() < 1
    assert not torch.equal(drawn[0], drawn[4])


def test_the_rate_that_is_recorded_is_that_of_the_hidden_matrices(tiny, tmp_path, monkeypatch):
    groups = GPT.parameter_groups

    def slower(self):
        hidden, *others = groups(self)
        return [hidden, *({**group, "lr": 1e-4} for group in others)]

    monkeypatch.setattr(GPT, "parameter_groups", slower)
    assert main([*tiny, "--schedule.name", "constant", "--optimizer.lr", "0.002"]) == 0
    assert [line["train/lr"] for line in lines_of(tmp_path / "runs")][-1] == 0.002
