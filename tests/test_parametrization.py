"""A run with muP from end to end: its rates, its weights, exported too, and who may use them."""

import numpy as np
import pytest
import torch

import export
from analysis.trained import trained
from record.runlog import read_metrics
from tests.jobs import command, only_run
from train_gpt2 import main

MUP = {"n_embd": "64", "n_head": "2", "parametrization": "mup", "base_n_embd": "32"}


def words(**own):
    return [word for key, value in own.items() for word in (f"--model.{key}", value)]


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mup")
    assert main([*command(shards, folder), *words(**MUP)]) == 0
    return only_run(folder)


def test_rates_by_role_are_logged(run):
    lines = [line for line in read_metrics(run) if "train/lr" in line]
    assert len(lines) == 12
    for line in lines:  # AdamW: twice the base width halves the rate of hidden matrices
        for role in ("embedding", "vector"):
            assert line[f"optimizer/lr_{role}"] == pytest.approx(2 * line["train/lr"], rel=1e-12)


def test_its_loss_is_the_same_here_and_exported(run, shards, tmp_path):
    assert export.main([str(run), str(tmp_path / "hf")]) == 0
    text = np.fromfile(next(shards.glob("*val*.bin")), dtype="<u2", offset=1024)[:2049]
    rows = torch.from_numpy(text.astype(np.int64))
    evaluated = [line["val/loss"] for line in read_metrics(run) if "val/loss" in line][-1]
    for source in (run, tmp_path / "hf"):
        model = trained(str(source), "cpu").model
        with torch.no_grad():
            loss = model(rows[:-1].view(-1, 32), rows[1:].view(-1, 32)).item()
        assert loss == pytest.approx(evaluated, abs=1e-5)
    assert model.shape.parametrization is None  # the factors of muP are in its weights


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({}, "(model.parametrization = none, not mup, model.base_n_embd = none, not 32)"),
        ({**MUP, "base_n_embd": "16"}, "(model.base_n_embd = 16, not 32)"),
    ],
)
def test_its_weights_start_no_run_of_another_parametrization(
    run, shards, tmp_path, capsys, own, said
):
    shape = words(**{"n_embd": "64", **own})
    assert main([*command(shards, tmp_path), "--init", f"run:{run}", *shape]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"has another model than this run {said}")


def test_its_weights_start_another_run_of_the_same(run, shards, tmp_path):
    flags = ["--init", f"run:{run}", "--data_seed", "2", "--train.total_steps", "1"]
    flags += ["--schedule.warmup_steps", "0"]
    assert main([*command(shards, tmp_path), *flags, *words(**MUP)]) == 0
    first, last = (
        [line["val/loss"] for line in read_metrics(folder) if "val/loss" in line][index]
        for folder, index in ((only_run(tmp_path), 0), (run, -1))
    )
    assert first == last
