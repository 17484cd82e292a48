"""A run with [diagnose]: the same training, and numbers that fit each other."""

import pytest
import torch

from configs import load
from record import inside
from record.runlog import read_metrics
from tests.jobs import assert_same, only_run, result
from tests.test_resume import interrupted
from train_gpt2 import main

EVERY = ["--diagnose.every", "3"]


def plain(end):
    lines, state = end
    return [{k: v for k, v in x.items() if not k.startswith("inside/")} for x in lines], state


@pytest.mark.parametrize(
    "flags",
    [
        ["--optimizer.name", "sophia_g", "--optimizer.k", "4"],
        ["--optimizer.name", "muonclip", "--optimizer.wrap.ema.decay", "0.9"],
    ],
)
def test_training_has_the_same_bits_with_and_without_and_when_interrupted(tiny, tmp_path, flags):
    runs = ["--log.dir", str(tmp_path / "other")]
    assert main([*tiny, *flags]) == 0
    assert main([*tiny, *flags, *runs, *EVERY]) == 0
    assert_same(result(tmp_path / "runs"), plain(result(tmp_path / "other")))
    folder = only_run(tmp_path / "other")
    assert folder.name == only_run(tmp_path / "runs").name  # outside the identity
    assert not (only_run(tmp_path / "runs") / inside.FILE).exists()

    again = [*tiny, *flags, *EVERY, "--log.dir", str(tmp_path / "again")]
    assert interrupted(again, at=5) == 0
    assert main(again) == 0
    assert_same(result(tmp_path / "other"), result(tmp_path / "again"))
    both = (folder, only_run(tmp_path / "again"))
    assert len({(x / inside.FILE).read_bytes() for x in both}) == 1


def test_the_configuration_of_a_run_without_it_has_no_such_table(tiny):
    assert "diagnose" not in load(tiny).table()
    assert load([*tiny, *EVERY]).table()["diagnose"] == {"every": 3}
    assert load([*tiny, *EVERY]).identity == load(tiny).identity


def test_gradients_and_rates_are_those_of_the_loop(tiny, tmp_path):
    sgd = ["--optimizer.name", "sgd", "--optimizer.momentum", "0", "--optimizer.lr", "0.5"]
    clip = ["--train.grad_clip", "0.25"]
    assert main([*tiny, *sgd, *clip, *EVERY]) == 0
    folder = only_run(tmp_path / "runs")
    measured = inside.read(folder)
    assert measured.steps.tolist() == [0, 3, 6, 9]
    lines = {x["step"]: x for x in read_metrics(folder) if "train/loss" in x}
    for i, step in enumerate(measured.steps):
        assert lines[step]["train/grad_norm"] > 0.25
        square = (measured.columns["gradient_norm"][i] ** 2).sum()
        assert square**0.5 == pytest.approx(0.25, rel=1e-4)  # after clipping
        moved = (measured.columns["update_norm"][i] ** 2).sum() ** 0.5
        assert moved == pytest.approx(lines[step]["train/lr"] * 0.25, rel=1e-3)
        assert measured.columns["cosine"][i] == pytest.approx(1, abs=1e-3)
        assert lines[step]["inside/gain_hidden"] == pytest.approx(1, abs=1e-3)
        # of the gradient before clipping: what the batch has is signal and noise, 512 tokens
        noise = {k: v[i] for k, v in measured.noise.items()}
        whole = noise["gradient_square"] + noise["trace"] / 512
        assert whole == pytest.approx(lines[step]["train/grad_norm"] ** 2, rel=1e-4)
        assert lines[step]["inside/noise_scale"] > 0
    assert not any("inside/gain_hidden" in lines[step] for step in (1, 2, 4))


def test_an_update_that_is_not_applied_shows_nothing(tiny, tmp_path):
    assert main([*tiny, *EVERY, "--optimizer.lr", "1e30", "--optimizer.weight_decay", "0"]) == 3
    (last, *_) = [x for x in read_metrics(only_run(tmp_path / "runs")) if "train/loss" in x][::-1]
    assert not any(key.startswith("inside/") for key in last)


def test_a_measured_update_does_not_compile_the_model_again(tiny, tmp_path, monkeypatch):
    compiled, graphs = torch.compile, []

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.backends.debugging.aot_eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", lambda *a, **kw: compiled(*a, backend=backend, **kw))
    given = ["--train.compile", "true", "--train.total_steps", "3", "--train.micro_batch_size", "8"]
    assert main([*tiny, *given, "--diagnose.every", "2"]) == 0
    assert len(graphs) == 2  # to train and to evaluate
    measured = inside.read(only_run(tmp_path / "runs"))
    assert measured.steps.tolist() == [0, 2]
    assert (measured.noise["trace"] > 0).all()
