"""What TensorBoard itself reads of a run is what metrics.jsonl holds, also after a kill."""

import sys

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from record.runlog import METRICS, read_metrics
from report.sources import read
from tests.jobs import command, only_run
from train_gpt2 import main


def scalars(run):
    """{name: {step: value}} as TensorBoard shows them."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]
    }


def recorded(run):
    """The same of metrics.jsonl; TensorBoard keeps float32."""
    found = {}
    for line in read_metrics(run):
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                found.setdefault(name, []).append((line["step"], float(np.float32(value))))
    return found


def test_every_number_is_there(shards, tmp_path):
    assert main([*command(shards, tmp_path), "--log.tensorboard", "true"]) == 0
    assert "val/loss" in recorded(only_run(tmp_path))
    assert scalars(only_run(tmp_path)) == recorded(only_run(tmp_path))
    (seen,) = read([str(tmp_path)]).runs  # the report needs neither mirror
    assert seen.status == "finished"
    assert not seen.problems


def test_a_killed_and_resumed_run_is_one_curve(shards, tmp_path):
    """Killed after the checkpoint of step 8, with lines of steps 8 and 9 in both mirrors."""
    words = [*command(shards, tmp_path), "--log.tensorboard", "true", "--train.total_steps", "20"]
    words += ["--eval.every", "4", "--checkpoint.keep", "9"]
    assert main(words) == 0
    run = only_run(tmp_path)
    for later in ("12", "16", "20"):
        next((run / "checkpoints").glob(f"step-{int(later):08d}*")).unlink()
    (run / "summary.json").unlink()
    lines = (run / METRICS).read_bytes().split(b"\n")
    (run / METRICS).write_bytes(b"\n".join(lines[:14]) + b"\n")
    before = recorded(run)
    assert before["train/loss"][-1][0] > 8
    assert main(words) == 0
    after = scalars(run)
    assert after == recorded(run)
    assert [step for step, _ in after["train/loss"]] == list(range(20))
    assert [step for step, _ in after["val/loss"]] == [0, 4, 8, 12, 16, 20]


def test_a_run_without_it_has_no_folder_and_the_package_is_not_imported(shards, tmp_path):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        del sys.modules[name]
    assert main(command(shards, tmp_path)) == 0
    assert not (only_run(tmp_path) / "tensorboard").exists()
    assert "torch.utils.tensorboard" not in sys.modules


def test_missing_package_is_one_line_before_training(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main([*command(shards, tmp_path), "--log.tensorboard", "true"]) == 2
    error = capsys.readouterr().err
    assert "pip install tensorboard" in error
    assert error.count("\n") == 1
    assert not read_metrics(only_run(tmp_path))


def test_a_full_disk_costs_the_curves_and_not_the_run(shards, tmp_path, monkeypatch, capsys):
    from torch.utils.tensorboard import SummaryWriter

    def full(self, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    assert main([*command(shards, tmp_path), "--log.tensorboard", "true"]) == 0
    assert capsys.readouterr().out.count("TensorBoard: no more curves of this run") == 1
    assert read_metrics(only_run(tmp_path))[-1]["step"] == 12
