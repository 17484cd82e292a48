"""A run whose numbers are no longer finite ends, says so and keeps its record."""

import math

import pytest
import torch

import train_gpt2
from record import checkpoints
from record.runlog import read_metrics, read_summary
from tests.jobs import only_run
from train_gpt2 import main


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_ends_the_run(
    tiny, tmp_path, monkeypatch, capsys, bad
):
    losses = iter([5.5, bad])  # before update 0 and after update 4
    monkeypatch.setattr(train_gpt2, "evaluate", lambda *_: torch.full((8,), next(losses)))
    assert main(tiny) == 3
    directory = only_run(tmp_path / "runs")
    assert (
        f"diverged: val loss {bad} after 5 updates with adamw and cosine" in capsys.readouterr().out
    )
    lines = read_metrics(directory)
    assert [x["step"] for x in lines if "train/loss" in x] == [0, 1, 2, 3, 4]
    last = lines[-1]["val/loss"]
    assert math.isnan(last) if math.isnan(bad) else last == bad
    summary = read_summary(directory)
    assert (summary["status"], summary["steps"]) == ("diverged", 5)
    saved = checkpoints.found(directory / "checkpoints")
    assert [path.name[:13] for path in saved] == ["step-00000004"]


def test_a_bad_loss_with_a_finite_gradient_is_not_applied(tiny, tmp_path, monkeypatch, capsys):
    backward, finish, calls, steps = train_gpt2.backward, train_gpt2.finish, [], []

    def bad_at_step_3(*arguments):
        calls.append(backward(*arguments))
        return calls[-1] * (math.nan if len(calls) == 4 else 1.0)

    def counted(run, state, *rest):
        steps.append(int(state.optimizer.state_dict()["state"][0]["step"]))
        finish(run, state, *rest)

    monkeypatch.setattr(train_gpt2, "backward", bad_at_step_3)
    monkeypatch.setattr(train_gpt2, "finish", counted)
    assert main(tiny) == 3
    assert steps == [3]
    last = read_metrics(only_run(tmp_path / "runs"))[-1]
    assert last["step"] == 3
    assert math.isnan(last["train/loss"])
    assert math.isfinite(last["train/grad_norm"])
    assert "train/stability_score" not in last  # scores are of finite updates
    assert "this update was not applied" in capsys.readouterr().out
    summary = read_summary(only_run(tmp_path / "runs"))
    assert (summary["status"], summary["nonfinite_updates"]) == ("diverged", 1)
