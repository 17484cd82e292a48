"""Val at every evaluation, test once at the end, and the loss of each sequence of both."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from record import checkpoints, sequences
from record.runlog import read_metrics, read_record, read_summary
from storage import files
from tests.jobs import only_run, write_shard
from tests.test_resume import interrupted
from train_gpt2 import evaluate, main


class ConstantLoss(torch.nn.Module):
    """A loss of float32(0.1) for every sequence; keeps how it was called."""

    def forward(self, tokens, targets, by_sequence):
        self.modes = getattr(self, "modes", set()) | {(self.training, torch.is_grad_enabled())}
        return torch.full((len(tokens),), 0.1)


def test_the_model_is_evaluated_without_gradients_and_trains_on():
    parts = [(slice(0, 2), torch.zeros(2, 3)), (slice(2, 3), torch.zeros(1, 3))]
    text = SimpleNamespace(sequences=3, batches=lambda rows: parts)
    process = SimpleNamespace(device=torch.device("cpu"), sum=lambda values: values)
    model = ConstantLoss()
    assert evaluate(model, text, 2, process).tolist() == [float(np.float32(0.1))] * 3
    assert model.modes == {(False, False)}  # neither in training mode nor with gradients
    assert model.training
    assert torch.is_grad_enabled()


@pytest.fixture
def finished(tiny, tmp_path):
    """The folder of a run that has ended."""
    assert main(tiny) == 0
    return only_run(tmp_path / "runs")


def without_test(shards, folder):
    """A copy of the shards as llm.c or nanoGPT would leave them: train and val."""
    shutil.copytree(shards, folder)
    (folder / "tiny_test_000000.bin").unlink()
    (folder / "index.json").unlink(missing_ok=True)
    return folder


def test_test_loss_is_measured_once_and_is_in_the_summary(finished):
    lines = [line for line in read_metrics(finished) if "val/loss" in line]
    assert [line["step"] for line in lines] == [0, 5, 10, 12]
    assert ["test/loss" in line for line in lines] == [False, False, False, True]
    summary = read_summary(finished)
    assert summary["final_test_loss"] == lines[-1]["test/loss"]
    assert summary["final_val_loss"] == lines[-1]["val/loss"]
    assert summary["final_test_loss"] != summary["final_val_loss"]
    assert set(sequences.read(finished)) == {"val", "test"}


def test_averages_are_evaluated_beside_the_judged_weights_which_a_child_starts_from(
    tiny, finished, tmp_path
):
    wrap = {"ema.decay": "0.5", "tail.start": "6", "tail.judged": "true"}
    flags = [word for key, x in wrap.items() for word in (f"--optimizer.wrap.{key}", x)]
    assert main([*tiny, *flags, "--log.dir", str(tmp_path / "wrapped")]) == 0
    run = only_run(tmp_path / "wrapped")
    assert run.name.startswith("adamw+ema+tail-cosine-s1-")
    lines = [line for line in read_metrics(run) if "val/loss" in line]
    names = [{key[9:] for key in line if key.startswith("val/loss_")} for line in lines]
    assert names == [set(), {"ema"}, {"ema", "raw"}, {"ema", "raw"}], "each from its beginning"
    plain, summary = read_summary(finished), read_summary(run)
    assert summary["final_val_loss_raw"] == plain["final_val_loss"], "training does not see them"
    assert summary["final_test_loss_raw"] == plain["final_test_loss"]
    assert summary["final_val_loss_ema"] == lines[-1]["val/loss_ema"]
    finals = {summary[f"final_val_loss{x}"] for x in ("", "_ema", "_raw")}
    assert len(finals) == 3
    assert set(sequences.read(run)) == {"val", "test"}
    bytes_more = 2 * 4  # two averages in float32
    key = "optimizer_state_bytes_per_parameter"
    assert summary[key] - plain[key] == pytest.approx(bytes_more, rel=0.2)

    child = [*tiny, "--init", f"run:{run}", "--log.dir", str(tmp_path / "child")]
    assert main([*child, "--train.total_steps", "1"]) == 0
    first = read_metrics(only_run(tmp_path / "child"))[0]
    assert first["val/loss"] == summary["final_val_loss"]
    assert main([*child, "--init_optimizer", "true"]) == 2


def test_folder_without_a_test_split_trains_the_same_model(tiny, shards, finished, tmp_path):
    data = without_test(shards, tmp_path / "data")
    assert main([*tiny, "--data.dir", str(data), "--log.dir", str(tmp_path / "other")]) == 0
    other = only_run(tmp_path / "other")
    summary, reference = read_summary(other), read_summary(finished)
    assert summary["final_test_loss"] is None
    assert summary["final_val_loss"] == reference["final_val_loss"]
    assert set(sequences.read(other)) == {"val"}
    assert set(read_record(other)["hashes"]) == {"batches", "weights", "val", "data"}
    weights, same = (
        checkpoints.load(checkpoints.found(run / "checkpoints")[0]).model
        for run in (other, finished)
    )
    assert all(torch.equal(weights[name], same[name]) for name in same)


@pytest.mark.parametrize(("tokens", "used"), [(1000, 31 * 32), (33, 32)])
def test_a_test_split_shorter_than_val_is_used_whole(tiny, shards, tmp_path, capsys, tokens, used):
    data = without_test(shards, tmp_path / "data")
    write_shard(data / "tiny_test_000000.bin", np.arange(tokens) % 256)
    assert main([*tiny, "--data.dir", str(data), "--train.total_steps", "1"]) == 0
    assert f"2,048 val tokens, {used:,} test tokens" in capsys.readouterr().out
    run = only_run(tmp_path / "runs")
    assert len(sequences.read(run)["test"]) == used // 32
    (launch,) = read_record(run)["launches"]
    assert launch["environment"]["eval_tokens"] == {"val": 2048, "test": used}


def test_a_test_split_without_one_sequence_is_refused(tiny, shards, tmp_path, capsys):
    data = without_test(shards, tmp_path / "data")
    write_shard(data / "tiny_test_000000.bin", np.zeros(32))
    assert main([*tiny, "--data.dir", str(data)]) == 2
    message = f"split test of {data} has 32 tokens, too few for one sequence of 32; remove its"
    assert message in capsys.readouterr().err


def test_a_run_stopped_at_its_last_update_ends_with_the_same_losses(tiny, finished, tmp_path):
    runs = tmp_path / "stopped"
    assert interrupted([*tiny, "--log.dir", str(runs)], at=11) == 0
    directory = only_run(runs)
    assert read_summary(directory)["steps"] == 12
    assert not (directory / sequences.FILE).exists()  # it has not been evaluated there
    assert main([*tiny, "--log.dir", str(runs)]) == 0
    same = [(run / sequences.FILE).read_bytes() for run in (directory, finished)]
    assert same[0] == same[1]


def test_losses_that_cannot_be_written_end_the_run_in_one_line(tiny, tmp_path, monkeypatch, capsys):
    def full(path, parts):
        if path.name == sequences.FILE:
            raise OSError(28, "No space left on device")
        files.write_atomically(path, parts)

    monkeypatch.setattr(sequences, "write_atomically", full)
    assert main(tiny) == 2
    assert capsys.readouterr().err.count("No space left on device") == 1
    directory = only_run(tmp_path / "runs")
    assert read_summary(directory) is None
    monkeypatch.undo()
    assert main(tiny) == 0  # resumes from its last checkpoint
    assert read_summary(directory)["final_test_loss"] is not None
