"""`python -m analysis` on real runs: numbers, records, figures, and one line for each mistake."""

import csv
import math

import numpy as np
import pytest
import torch

from analysis.__main__ import main
from analysis.trained import trained
from data import open_split
from data.loader import Loader
from record import huggingface, sharpness
from record.runlog import read_metrics
from tests.jobs import command, only_run
from train_gpt2 import GPT
from train_gpt2 import main as train

ON_CPU = ["--tokens", "2048", "--device", "cpu"]
LOSS_ALONE = ["--eigenvalues", "0", "--draws", "0", "--passes", "0"]


@pytest.fixture(scope="module")
def runs(shards, tmp_path_factory):
    """Finished runs of 12 updates with checkpoints at 4, 8 and 12; one is schedule-free."""
    found = {}
    for name, seed in (("adamw", "1"), ("adamw", "2"), ("schedule_free_adamw", "1")):
        folder = tmp_path_factory.mktemp(name)
        words = ["--optimizer.name", name, "--seed", seed, "--checkpoint.keep", "9"]
        assert train([*command(shards, folder), *words, "--eval.every", "4"]) == 0
        found[f"{name}-{seed}"] = only_run(folder)
    return found


def test_every_checkpoint_is_measured_on_the_text_that_the_run_was_evaluated_on(runs, capsys):
    run = runs["adamw-2"]
    assert main(["sharpness", f"{run}@all", *ON_CPU, *LOSS_ALONE, "--split", "val"]) == 0
    found = sharpness.read(run)
    losses = {x["step"]: x["val/loss"] for x in read_metrics(run) if "val/loss" in x}
    assert [(x.step, x.only_loss) for x in found] == [(4, True), (8, True), (12, True)]
    assert [x.loss for x in found] == pytest.approx([losses[x.step] for x in found], abs=1e-5)
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "sharpness.json")


def test_what_a_run_has_seen_is_what_its_first_updates_took(runs, shards):
    run = runs["adamw-2"]
    (run / "sharpness.json").unlink(missing_ok=True)
    words = ["--split", "seen", "--tokens", "1056", "--device", "cpu", *LOSS_ALONE]
    assert main(["sharpness", f"{run}@8", *words]) == 0
    (found,) = sharpness.read(run)
    source = trained(f"{run}@8", "cpu")
    config = source.origin.config
    block, size = config.model.block_size, config.train.batch_tokens // config.model.block_size
    tokens = open_split(shards, "train", vocab_size=config.model.vocab_size)
    loader = Loader(tokens, block_size=block, batch_size=size, data_seed=config.data_seed)
    steps = [loader.global_batch(step) for step in range(math.ceil(1056 / block / size))]
    rows = torch.from_numpy(np.concatenate(steps)[: 1056 // block].astype(np.int64))
    assert (found.split, found.tokens, len(rows)) == ("seen", 1056, 33)
    with torch.no_grad():
        assert found.loss == pytest.approx(source.model(rows[:, :-1], rows[:, 1:]).item(), abs=1e-5)


def test_all_measures_of_one_checkpoint(runs, capsys):
    run = runs["adamw-1"]
    words = ["--tokens", "100", "--draws", "2", "--passes", "3", "--device", "cpu"]
    assert main(["sharpness", f"{run}@4", *words]) == 0
    (found,) = sharpness.read(run)
    assert (found.tokens, found.split, found.only_loss) == (96, "train", False)
    assert found.eigenvalues[0] > 0
    assert found.trace_error > 0
    assert found.neighbourhoods[0].all_directions > found.neighbourhoods[1].all_directions > 0
    assert found.neighbourhoods[0].subspace > found.neighbourhoods[1].subspace > 0
    assert found.adaptive > 0
    assert found.preconditioned.eigenvalue > 0
    assert found.preconditioned.limit == pytest.approx((2 + 2 * 0.9) / (1 - 0.9))
    assert (run / "checkpoints" / f"step-00000004-{found.checkpoint}.pt").is_file()
    said = capsys.readouterr().out
    assert said.count("largest eigenvalues") == said.count("38 / lr") == 1


def test_a_measurement_replaces_that_of_its_setting_and_no_other(runs):
    run = runs["adamw-2"]
    (run / "sharpness.json").unlink(missing_ok=True)
    words = [*LOSS_ALONE, "--passes", "2", *ON_CPU]
    for more in (["--split", "val"], ["--split", "val"], ["--rescale", "1", "4"]):
        assert main(["sharpness", f"{run}@8", *words, *more]) == 0
    found = sharpness.read(run)
    assert [(x.step, x.split, x.rescaled) for x in found] == [
        (8, "train", 1), (8, "train", 4), (8, "val", 1)]  # fmt: skip
    assert found[0].adaptive == pytest.approx(found[1].adaptive, rel=1e-4)
    assert found[0].neighbourhoods[0].all_directions != pytest.approx(
        found[1].neighbourhoods[0].all_directions, rel=0.01
    )


def test_averaged_weights_are_measured_and_their_scaling_is_said_to_be_unknown(runs, capsys):
    run = runs["schedule_free_adamw-1"]
    assert main(["sharpness", str(run), *ON_CPU, *LOSS_ALONE, "--split", "val"]) == 0
    (found,) = sharpness.read(run)
    evaluated = [x["val/loss"] for x in read_metrics(run) if "val/loss" in x][-1]
    assert found.loss == pytest.approx(evaluated, abs=1e-5)
    words = [*LOSS_ALONE, "--eigenvalues", "1", "--tokens", "32", "--device", "cpu"]
    assert main(["sharpness", str(run), *words]) == 0
    assert "not known, as schedule_free_adamw does not" in capsys.readouterr().out


def test_a_line_has_the_losses_of_its_ends(runs, tmp_path, capsys):
    out = tmp_path / "line.html"
    words = ["line", str(runs["adamw-1"]), str(runs["adamw-2"]), "--points", "3"]
    assert main([*words, "--tokens", "2048", "--out", str(out), "--device", "cpu"]) == 0
    rows = list(csv.DictReader(out.with_suffix(".csv").open()))
    assert [float(row["t"]) for row in rows] == [0, 0.5, 1]
    for row, run in ((rows[0], "adamw-1"), (rows[-1], "adamw-2")):
        evaluated = [x["val/loss"] for x in read_metrics(runs[run]) if "val/loss" in x][-1]
        assert float(row["val_loss"]) == pytest.approx(evaluated, abs=1e-5)
    assert "barrier" in capsys.readouterr().out
    assert "plotly" in out.read_text()


def test_a_plane_through_three_checkpoints_and_one_in_random_directions(runs, tmp_path, capsys):
    run, out = runs["adamw-1"], tmp_path / "plane.html"
    three = [str(run), f"{run}@4", str(runs["adamw-2"])]
    rest = ["--points", "3", "--tokens", "64", "--out", str(out), "--device", "cpu"]
    assert main(["plane", *three, *rest]) == 0
    rows = list(csv.DictReader(out.with_suffix(".csv").open()))
    assert len(rows) == 9
    assert main(["plane", str(run), "--span", "0.5", *rest]) == 0
    rows = list(csv.DictReader(out.with_suffix(".csv").open()))
    (middle,) = [row for row in rows if float(row["x"]) == float(row["y"]) == 0]
    text = np.fromfile(next(only_data(run).glob("*val*.bin")), dtype="<u2", offset=1024)[:65]
    tokens = torch.from_numpy(text.astype(np.int64))
    with torch.no_grad():
        loss = trained(str(run), "cpu").model(tokens[:-1].view(2, 32), tokens[1:].view(2, 32))
    assert float(middle["val_loss"]) == pytest.approx(loss.item(), abs=1e-5)


def only_data(run):
    return trained(str(run), "cpu").data_dir


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sharpness", "{empty}"], "is a run without checkpoints; give a run that has checkpoints"),
        (["sharpness", "{empty}/.."], "is not a run's folder; give a run that has checkpoints"),
        (["sharpness", "{empty}@all"], "is a run without checkpoints"),
        (["sharpness", "{published}"], "is not a run's folder"),
        (["sharpness", "{run}@7"], "no such checkpoint; it has @4, @8, @12"),
        (["sharpness", "{run}", "--tokens", "31"], "less than one sequence of 32"),
        (["sharpness", "{run}", "--split", "val", "--tokens", "9000"], "has 8192 in whole"),
        (
            ["sharpness", "{run}@4", "--split", "seen", "--tokens", "99999"],
            "by update 4 the run has met 2048 tokens",
        ),
        (["line", "{run}", "{other}"], "different shapes (vocab_size 256 and 300)"),
        (["line", "{published}", "{published}"], "published weights come without data"),
        (["line", "{run}", "{empty}"], "is a run without checkpoints"),
        (["hellaswag", "{empty}"], "is a run without checkpoints"),
        (["hellaswag", "{run}", "{run}@7"], "no such checkpoint; it has @4, @8, @12"),
        (["hellaswag", "{run}"], "needs GPT-2's vocabulary, 50257 tokens; this model has 256"),
        (["plane", "{run}", "{run}"], "1 or 3 models, not 2"),
        (["plane", "{run}", "{run}", "{run}@4"], "lie on one line"),
        (["line", "{run}", "{run}", "--device", "cuda"], "no GPU is visible"),
    ],
)
def test_a_mistake_is_one_line(runs, shards, tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.toml").write_text("")
    names = {"run": runs["adamw-1"], "empty": empty}
    if "{published}" in words:
        model = trained(str(runs["adamw-1"]), "cpu").model
        names["published"] = tmp_path / "hf"
        huggingface.write(names["published"], model.shape, model.state_dict(), {})
    if "{other}" in words:
        shape = trained(str(runs["adamw-1"]), "cpu").model.shape
        shape = shape.model_copy(update={"vocab_size": 300})
        names["other"] = tmp_path / "hf"
        huggingface.write(names["other"], shape, GPT.initialised(shape, 1).state_dict(), {})
    capsys.readouterr()
    assert main([word.format(**names) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_figure_without_a_folder_is_refused_before_anything_is_read(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["line", "runs/A", "runs/B", "--out", str(tmp_path / "figures" / "line.html")])
    assert ended.value.code == 2
    assert f"there is no folder {tmp_path / 'figures'}" in capsys.readouterr().err


def test_a_damaged_record_is_named_before_anything_is_measured(runs, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").symlink_to(runs["adamw-1"] / "checkpoints")
    (run / "sharpness.json").write_text("[{}]")
    monkeypatch.setattr("analysis.sharpness.measure", lambda *_: pytest.fail("measured"))
    assert main(["sharpness", str(runs["adamw-1"]), str(run), *ON_CPU]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "sharpness.json is damaged (0.step: Field required)" in line


def test_an_interrupted_series_keeps_what_it_has(runs, tmp_path, capsys, monkeypatch):
    from analysis import sharpness as measuring

    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").symlink_to(runs["adamw-1"] / "checkpoints")
    whole, count = measuring.measure, iter((1, 2))

    def second_is_interrupted(*given):
        if next(count) == 2:
            raise KeyboardInterrupt  # as Ctrl-C does
        return whole(*given)

    monkeypatch.setattr(measuring, "measure", second_is_interrupted)
    assert main(["sharpness", f"{run}@all", *ON_CPU, *LOSS_ALONE]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "interrupted" in line
    assert [x.step for x in sharpness.read(run)] == [4]
