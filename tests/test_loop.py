"""What the loop says and records besides the losses, and what it hands to others."""

import pytest
import torch

import train_gpt2
from record import checkpoints, screen
from record.runlog import read_metrics, read_summary
from tests.jobs import only_run
from tests.test_resume import interrupted
from train_gpt2 import main


def updates(runs):
    return [line for line in read_metrics(only_run(runs)) if "train/loss" in line]


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "tf32"), ("bfloat16", "bfloat16")])
def test_mfu_is_the_share_of_the_devices_peak(tiny, tmp_path, monkeypatch, dtype, precision):
    asked = []

    def peak(name, of):
        asked.append((name, of))
        return 1e9

    monkeypatch.setattr(train_gpt2.hardware, "peak_flops", peak)
    assert main([*tiny, "--train.dtype", dtype, "--train.total_steps", "3"]) == 0
    assert asked == [("cpu", precision)]
    summary = read_summary(only_run(tmp_path / "runs"))
    n = 256 * 32 + 2 * 12_704 + 64  # without the positions
    assert summary["flops_per_token"] == 6 * n + 12 * 2 * 32 * 32
    for line in updates(tmp_path / "runs"):
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
    found = [int(path.name[5:13]) for path in checkpoints.found(directory / "checkpoints")]
    assert found == [6, 4]
    assert read_summary(directory)["status"] == "stopped"
    assert [line["step"] for line in updates(tmp_path / "runs")] == list(range(6))
    assert main([*tiny]) == 0
    assert [line["step"] for line in updates(tmp_path / "runs")] == list(range(12))
    val = [x["step"] for x in read_metrics(directory) if "val/loss" in x]
    assert val == [0, 5, 10, 12]


@pytest.mark.parametrize(("every", "steps"), [(0, [12]), (5, [12, 10, 5]), (12, [12])])
def test_checkpoints_are_written_when_due_and_at_the_end(tiny, tmp_path, every, steps):
    assert main([*tiny, "--checkpoint.every", str(every), "--checkpoint.keep", "9"]) == 0
    directory = only_run(tmp_path / "runs") / "checkpoints"
    assert [int(path.name[5:13]) for path in checkpoints.found(directory)] == steps


def test_a_run_that_begins_at_a_checkpoint_does_not_write_it_again(tiny, tmp_path, monkeypatch):
    assert interrupted(tiny, at=7) == 0  # it stops after one update more; 8 is due, too
    saved, save = [], train_gpt2.save

    def counted(run, state, log):
        saved.append(state.progress.step)
        save(run, state, log)

    monkeypatch.setattr(train_gpt2, "save", counted)
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
