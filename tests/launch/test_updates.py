"""On a GPU the loop waits once in an update, and the lines of its record are those of a CPU."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from configs import Model
from launch.process import Process
from launch.updates import Updates
from record.checkpoints import Progress
from record.runlog import read_metrics
from tests.jobs import assert_same, only_run, result
from tests.test_resume import interrupted
from train_gpt2 import main


class Event:
    """Stands for CUDA's: passed half a second after the one before; only then has it a time."""

    passed = itertools.count()

    def __init__(self, *, enable_timing):
        assert enable_timing
        self.seconds, self.known = None, False

    def record(self):
        self.seconds = 0.5 * next(self.passed)

    def synchronize(self):
        self.known = True

    def elapsed_time(self, end):
        assert end.known, "nobody waited for it"
        return 1e3 * (end.seconds - self.seconds)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The loop's clock reads events, as on a GPU; everything else stays on the CPU."""
    make = Updates.__init__

    def made(self, *arguments):
        make(self, *arguments)
        self.waits_later = True

    monkeypatch.setattr(Updates, "__init__", made)
    monkeypatch.setattr(torch.cuda, "Event", Event)


def test_the_line_of_an_update_waits_until_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    lines, progress = [], Progress(train_seconds=10.0)
    updates = Updates(
        SimpleNamespace(world_size=2, device=torch.device("cpu"), device_name="NVIDIA A30"),
        SimpleNamespace(
            model=Model(vocab_size=64, block_size=4, n_layer=1, n_head=1, n_embd=8),
            train=SimpleNamespace(batch_tokens=600),
        ),
        SimpleNamespace(log=lambda step, values, inside: lines.append((step, values))),
        SimpleNamespace(stepped=lambda step, values: None),
        progress,
        "bfloat16",
    )
    updates.waits_later = True
    optimizer_values = {"optimizer/d": torch.tensor(0.1, dtype=torch.float64)}
    optimizer_values["optimizer/skipped"] = torch.tensor(3)
    for step in (4, 5):
        updates.start()
        for _ in range(3):
            updates.mark()
        updates.report()  # of the one before
        updates.log_later(step, {"train/loss": 2.0, **optimizer_values})
    assert [step for step, _ in lines] == [4]
    updates.report()
    updates.report()
    assert [step for step, _ in lines] == [4, 5]
    flops = 6 * (64 * 8 + 12 * 8 * 8 + 13 * 8 + 2 * 8) + 12 * 8 * 4  # of a token
    assert lines[1][1] == {
        "train/loss": 2.0,
        "optimizer/d": 0.1,
        "optimizer/skipped": 3.0,
        "time/train_seconds": 13.0,
        "time/step_ms": 1500.0,
        "time/optimizer_ms": 500.0,
        "tokens": 3600,
        "tokens_per_second": 400.0,
        "mfu": pytest.approx(400 * flops / (2 * 165e12)),
        "memory/peak_gib": lines[1][1]["memory/peak_gib"],
    }
    assert progress.train_seconds == 13.0


def test_lines_that_wait_for_the_device_are_those_of_a_cpu(tiny, tmp_path, as_on_a_gpu):
    """Also those before a checkpoint, a stop and the end, and after a resume."""
    other = [*tiny, "--log.dir", str(tmp_path / "later")]
    assert interrupted(other, at=5) == 0
    assert main(other) == 0
    lines = [x for x in read_metrics(only_run(tmp_path / "later")) if "train/loss" in x]
    assert [x["time/train_seconds"] for x in lines] == [1.5 * (i + 1) for i in range(12)]
    with pytest.MonkeyPatch.context() as undone:
        undone.setattr(Updates, "waits_later", property(lambda _: False, lambda *_: None), False)
        assert main(tiny) == 0
    assert_same(result(tmp_path / "runs"), result(tmp_path / "later"))


def test_a_diverging_run_reports_its_last_update(tiny, tmp_path, as_on_a_gpu):
    assert main([*tiny, "--optimizer.lr", "1e30", "--train.grad_clip", "0"]) == 3
    lines = [x for x in read_metrics(only_run(tmp_path / "runs")) if "train/loss" in x]
    assert lines
    assert [x["step"] for x in lines] == [*range(len(lines))]


def test_the_loop_waits_for_the_device_once_in_an_update(tiny, monkeypatch):
    waits = []
    monkeypatch.setattr(Process, "synchronize", lambda self: waits.append(1))
    assert main(tiny) == 0
    assert len(waits) == 1, "after the warm-up"
