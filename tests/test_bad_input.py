"""A mistake is named in one line, before anything is spent; nothing is lost."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from record import checkpoints
from record.runlog import read_metrics, read_summary
from tests.jobs import ROOT, command, job, only_run, write_shard
from train_gpt2 import main


def refused(arguments, capsys, *words):
    """The command ends with exit code 2 and one line that holds all `words`."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line
    return line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--train.total_step", "5"], ["train.total_step", "'train.total_steps'"]),
        (["--lr", "1e-3"], ["'lr'", "'optimizer.lr'"]),
        (["--optimizer.name", "adamww"], ["adamww", "'adamw'"]),
        (["--schedule.name", "cosin"], ["cosin", "'cosine'"]),
        (["--optimizer.weight_decya", "0.1"], ["optimizer.weight_decya", "'weight_decay'"]),
        (["--schedule.min_lr_rate", "0.1"], ["schedule.min_lr_rate", "'min_lr_ratio'"]),
        (["--optimizer.name", "no.such.Class"], ["no.such.Class"]),
        (["--train.total_steps", "1e-3"], ["train.total_steps = 0.001", "whole number"]),
        (["--optimizer.name", "AdamW"], ["AdamW", "did you mean 'adamw'"]),
        (["--optimizer.nme", "adam"], ["'optimizer.nme'; did you mean 'name'? valid: "]),
        (["--optimizer.betas", "0.9", "0.99"], ["'0.99'; a list is one word", "--optimizer.betas"]),
        (["--optimizer.betas", "0.9;0.99"], ["such as 0.9,0.999 or [0.9, 0.999]"]),
        (["--max_iters", "5"], ["--train.total_steps"]),
        (["--train.grad_clip", "true"], ["train.grad_clip = True", "number"]),
        (["--optimizer.lr", "fast"], ["optimizer.lr = 'fast'", "number"]),
        (["--optimizer.lr", "nan"], ["optimizer.lr = nan"]),
        (["--optimizer.betas", "[0.9]"], ["optimizer.betas"]),
        (["--model.n_head", "3"], ["n_embd = 32", "n_head = 3"]),
        (["--train.batch_tokens", "500"], ["500", "1 ranks x block_size 32 = 32"]),
        (["--train.micro_batch_size", "3"], ["micro_batch_size 3 x block_size 32 = 96"]),
        (["--schedule.warmup_steps", "13"], ["schedule.warmup_steps", "13", "12"]),
        (["--eval.tokens", "1000"], ["eval.tokens = 1000", "32"]),
        (["--eval.tokens", "1024000"], ["--eval.tokens 8192"]),
        (["--train.batch_tokens", "64000"], ["1,249 sequences", "2,000"]),
        (["--model.vocab_size", "90"], ["tiny_", "90"]),
        (["--data.format", "nanogpt"], ["--data.format"]),
        (["--seed"], ["--seed needs a value"]),
        (["--seed", "4294967296"], ["seed = 4294967296", "less than 2147483648"]),
        (["--optimizer.name", "torch.optim.Adamax", "--optimizer.lr=-1.0"], ["Adamax"]),
        (["nothing.toml"], ["nothing.toml"]),
        (["cosine"], ["unexpected argument 'cosine'"]),
    ],
)
def test_mistake_is_named_in_one_line(tiny, capsys, tmp_path, flags, words):
    refused([*tiny, *flags], capsys, *words)
    assert not (tmp_path / "runs").exists()  # nothing was begun


def test_cuda_asked_for_where_there_is_none(tiny, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    refused([*tiny, "--train.device", "cuda"], capsys, "0 visible", "--train.device cpu")


def test_overlay_alone_is_no_configuration(capsys):
    overlay = str(ROOT / "configs/schedule/wsd.toml")
    refused([overlay], capsys, "[model]", "configs/gpt2_124m.toml")


def test_missing_shards_name_both_ways_forward(tiny, capsys, tmp_path):
    flags = ["--data.dir", str(tmp_path / "nowhere")]
    refused([*tiny, *flags], capsys, "nowhere", "python -m data fineweb", "make train")


def test_missing_shards_under_torchrun_are_told_once_and_all_ranks_leave(tiny, tmp_path):
    late = "import os, time; time.sleep(2 * (os.environ.get('RANK') == '0'))"  # rank 0 comes last
    (tmp_path / "sitecustomize.py").write_text(late)
    flags = ["--data.dir", str(tmp_path / "nowhere")]
    process = job([*tiny, *flags], nproc=2, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1  # torchrun's own; the ranks exit with 2:
    assert "exitcode  : 2" in output
    assert output.count("error: ") == 1
    assert output.count("Traceback") == 1  # the agent's: it reports every failed worker so


@pytest.mark.parametrize("damage", ["truncated", "magic", "version", "foreign"])
def test_bad_shard_is_named_with_the_reason(tiny, shards, capsys, tmp_path, damage):
    folder = tmp_path / "damaged"
    shutil.copytree(shards, folder, ignore=shutil.ignore_patterns("*.json"))
    shard = folder / "tiny_train_000001.bin"
    content = bytearray(shard.read_bytes())
    if damage == "truncated":
        content = content[:-10]
    elif damage == "magic":
        content[0] ^= 1
    elif damage == "version":
        content[4] = 9
    else:
        content = bytearray(b"PK\x03\x04 not tokens at all" * 100)
    shard.write_bytes(content)
    refused([*tiny, "--data.dir", str(folder)], capsys, shard.name)


def test_too_few_tokens_for_one_batch(tiny, capsys, tmp_path):
    folder = tmp_path / "short"
    folder.mkdir()
    write_shard(folder / "a_train_000000.bin", np.zeros(100, dtype=np.uint16))
    write_shard(folder / "a_val_000000.bin", np.zeros(5000, dtype=np.uint16))
    refused([*tiny, "--data.dir", str(folder)], capsys, "3 sequences of 32", "takes 16")


def test_run_folder_that_cannot_be_written(tiny, capsys, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    refused([*tiny, "--log.dir", str(blocked)], capsys, str(blocked), "--log.dir")


def test_second_process_on_the_same_run_is_refused(tiny, capsys, monkeypatch):
    import record.runlog as runlog

    log, real = runlog.RunLog.log, runlog.lock
    answers = []

    def try_again(self, step, values, *inside):
        if not answers:
            answers.append(main(tiny))
        log(self, step, values, *inside)

    monkeypatch.setattr(runlog, "lock", lambda directory, wait_seconds: real(directory, 0))
    monkeypatch.setattr(runlog.RunLog, "log", try_again)
    assert main(tiny) == 0
    assert answers == [2]
    assert str(os.getpid()) in capsys.readouterr().err  # the owner is named


def test_loss_that_is_not_finite_ends_as_diverged_and_stays_in_the_record(tiny, tmp_path, capsys):
    wild = [*tiny, "--optimizer.name", "sgd", "--optimizer.lr", "1e30", "--train.grad_clip", "0"]
    assert main(wild) == 3
    assert "diverged: loss nan" in capsys.readouterr().out
    directory = only_run(tmp_path / "runs")
    summary = read_summary(directory)
    assert summary["status"] == "diverged"
    assert summary["diverged"] is True
    last = [x for x in read_metrics(directory) if "train/loss" in x][-1]
    assert not np.isfinite(last["train/loss"])
    json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])
    assert main(wild) == 3  # and it says so again instead of training
    assert "has diverged already" in capsys.readouterr().out


def test_gradient_that_is_not_finite_is_not_applied(tiny, tmp_path, monkeypatch):
    """The weights at the end are those before the bad update."""
    clip, weights = torch.nn.utils.clip_grad_norm_, []

    def spoilt(parameters, max_norm):
        norm = clip(parameters, max_norm)
        if len(weights) == 3:
            norm = norm * float("nan")
        weights.append([p.detach().clone() for p in parameters])
        weights.append(parameters) if len(weights) == 4 else None
        return norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spoilt)
    assert main(tiny) == 3
    before, after = weights[3], weights[4]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert len([x for x in read_metrics(only_run(tmp_path / "runs")) if "train/loss" in x]) == 4


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1.5 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here (needs root)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_leaves_the_previous_checkpoint_good(shards, small_disk, capsys):
    """34,688 parameters: about 430 kB a checkpoint, so the fourth does not fit."""
    arguments = [*command(shards, small_disk / "runs"), "--checkpoint.keep", "9"]
    arguments += ["--train.total_steps", "40"]
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in error
    assert "give the same command again" in error
    folder = only_run(small_disk / "runs") / "checkpoints"
    newest = checkpoints.newest_whole(folder)
    assert newest == checkpoints.found(folder)[0]
    assert not (folder / "partial").exists()
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert f"from step {checkpoints.step_of(newest)}" in out
    steps = [x["step"] for x in read_metrics(folder.parent) if "train/loss" in x]
    assert steps == list(range(40))


def test_full_disk_under_two_ranks_ends_both_without_a_traceback(shards, small_disk):
    """With W&B, whose closing keeps rank 0 busy while the other could already leave."""
    arguments = [*command(shards, small_disk / "runs"), "--checkpoint.keep", "9"]
    flags = ["--train.total_steps", "40", "--log.wandb", "offline"]
    process = job([*arguments, *flags], nproc=2)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 1
    assert output.count("error: stopped at step") == 1
    assert output.count("Traceback") == 1  # the agent's


def test_model_of_the_test_disk_is_as_large_as_that_test_says(tiny):
    from configs import load, size

    assert size.parameters(load(tiny).model) == 34_688
    assert Path(tiny[0]).name == "quickstart.toml"
