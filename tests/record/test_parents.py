"""A run that starts from another's weights: which ones, its state and name, and errors."""

import shutil

import numpy as np
import pytest
import torch

import optim
from configs import load
from contest.job import resolved
from record import checkpoints, parents
from record.runlog import read_metrics, read_record
from tests.jobs import assert_same, command, only_run
from train_gpt2 import GPT, main

PARENTS = ("adamw", "schedule_free_adamw", "prodigy")


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    """Folders of finished runs of 12 updates, by optimizer; checkpoints at 4, 8 and 12."""
    found = {}
    for name in PARENTS:
        runs = tmp_path_factory.mktemp(name)
        flags = ["--optimizer.name", name, "--checkpoint.keep", "9"]
        assert main([*command(shards, runs), *flags]) == 0
        found[name] = only_run(runs)
    return found


def val_losses(folder):
    return {line["step"]: line["val/loss"] for line in read_metrics(folder) if "val/loss" in line}


@pytest.mark.parametrize("name", PARENTS)
@pytest.mark.parametrize("state", ["false", "true"])
def test_child_begins_at_the_loss_at_which_the_parent_ended(shards, trained, tmp_path, name, state):
    parent = trained[name]
    flags = ["--optimizer.name", name, "--init", f"run:{parent}", "--init_optimizer", state]
    assert main([*command(shards, tmp_path), *flags, "--data_seed", "2"]) == 0
    child = only_run(tmp_path)
    assert child.name != parent.name
    assert val_losses(child)[0] == val_losses(parent)[12]
    assert val_losses(child)[12] < val_losses(child)[0]
    record = read_record(child)
    assert record["parent"] == {
        "run": parent.name,
        "step": 12,
        "checkpoint": checkpoints.newest_whole(parent / "checkpoints").stem[-16:],
        "optimizer_state": state == "true",
    }
    assert record["hashes"]["weights"] != read_record(parent)["hashes"]["weights"]


def child_of(shards, parent, *flags):
    """Configuration, checkpoint and freshly built optimizer of a child."""
    words = [*command(shards, parent.parent / "child"), "--init", f"run:{parent}", *flags]
    config = parents.resolved(optim.resolve(load(words)))
    model = GPT.initialised(config.model, config.seed)
    return (
        config,
        parents.of(config),
        model,
        optim.optimizer_of(config, model.parameter_groups()),
    )


def test_state_goes_on_with_the_hyperparameters_of_the_child(shards, trained):
    flags = ["--optimizer.name", "prodigy", "--init_optimizer", "true",
             "--optimizer.lr", "0.5", "--optimizer.weight_decay", "0.25"]  # fmt: skip
    config, saved, _, optimizer = child_of(shards, trained["prodigy"], *flags)
    parents.put_state(config, saved, optimizer)
    theirs, ours = saved.optimizer, optimizer.state_dict()
    assert {(group["lr"], group["weight_decay"]) for group in ours["param_groups"]} <= {
        (0.5, 0.25),
        (0.5, 0.0),
    }
    estimates = [[g.get("d") for g in s["param_groups"]] for s in (theirs, ours)]
    assert estimates[0] == estimates[1]
    learned = [d for d in estimates[0] if d is not None]
    assert learned
    assert config.optimizer.hyperparameters["d0"] not in learned
    for key, state in theirs["state"].items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(ours["state"][key][name]), torch.as_tensor(value))


def test_without_state_the_optimizer_is_new(shards, trained):
    config, saved, _, optimizer = child_of(shards, trained["adamw"])
    parents.put_state(config, saved, optimizer)
    assert not optimizer.state_dict()["state"]


def test_averaged_weights_are_those_evaluated_unless_the_state_goes_on(shards, trained):
    """y = (1 - beta1) z + beta1 x, so the weights that were evaluated are x = (y - 0.1 z) / 0.9."""
    flags = ["--optimizer.name", "schedule_free_adamw", "--optimizer.betas", "[0.9, 0.95]"]
    for state in ("false", "true"):
        config, saved, model, _ = child_of(
            shards, trained["schedule_free_adamw"], *flags, "--init_optimizer", state
        )
        beta = parents.configuration(saved).optimizer.hyperparameters["betas"][0]
        parents.put_weights(config, saved, model, optim.optimizer_of)
        names = [name for group in model.parameter_groups() for name in group["names"]]
        for index, name in enumerate(names):
            y, z = saved.model[name], saved.optimizer["state"][index]["z"]
            expected = y if state == "true" else (y - (1 - beta) * z) / beta
            torch.testing.assert_close(model.state_dict()[name], expected, rtol=1e-4, atol=1e-6)


def test_evaluated_weights_are_those_of_the_last_evaluation_whatever_the_run_began_with(
    shards, trained, tmp_path
):
    flags = ["--optimizer.name", "schedule_free_adamw", "--init_optimizer", "true"]
    parent = ["--init", f"run:{trained['schedule_free_adamw']}"]
    assert main([*command(shards, tmp_path), *flags, *parent]) == 0
    saved = checkpoints.load(checkpoints.found(only_run(tmp_path) / "checkpoints")[0])
    model = GPT(parents.configuration(saved).model)
    parents.put_evaluated_weights(saved, model, optim.optimizer_of)
    tokens = np.fromfile(shards / "tiny_val_000000.bin", dtype="<u2", offset=1024)[:2049]
    rows = torch.from_numpy(tokens.astype(np.int64))
    with torch.no_grad():
        loss = model(rows[:-1].view(-1, 32), rows[1:].view(-1, 32)).item()
        model.load_state_dict(saved.model)
        of_trained = model(rows[:-1].view(-1, 32), rows[1:].view(-1, 32)).item()
    evaluated = val_losses(only_run(tmp_path))[12]
    assert loss == pytest.approx(evaluated, abs=1e-5)
    assert abs(of_trained - evaluated) > 1e-4


def test_a_checkpoint_holds_both_weights_where_an_optimizer_averages(shards, trained):
    """One of an earlier version, without the evaluated ones, gives the same bits."""
    _, saved, model, _ = child_of(shards, trained["schedule_free_adamw"])
    assert saved.evaluated.keys() == saved.model.keys()
    assert any(not torch.equal(x, saved.model[name]) for name, x in saved.evaluated.items())
    held, saved.evaluated = saved.evaluated, None
    parents.put_evaluated_weights(saved, model, optim.optimizer_of)
    assert_same(held, dict(model.state_dict()))
    for path in checkpoints.found(trained["adamw"] / "checkpoints"):
        assert "evaluated" not in torch.load(path), "earlier versions can read it"


def test_weights_are_read_where_the_state_of_an_earlier_version_does_not_fit(shards, trained):
    """Only weights that are averages need the state, here without any group."""
    _, saved, model, _ = child_of(shards, trained["adamw"])
    saved.optimizer = {"state": {}, "param_groups": []}
    parents.put_evaluated_weights(saved, model, optim.optimizer_of)
    for name, p in model.named_parameters():
        assert torch.equal(p, saved.model[name])


def test_name_of_the_child_depends_on_the_weights_and_not_on_where_they_lie(
    shards, trained, tmp_path
):
    moved = shutil.copytree(trained["adamw"], tmp_path / "moved")
    words = command(shards, tmp_path / "runs")
    names = [
        parents.resolved(optim.resolve(load([*words, "--init", f"run:{source}"]))).run_name
        for source in (trained["adamw"], moved, f"{moved}@12", f"{moved}@8")
    ]
    assert names[0] == names[1] == names[2] != names[3]
    assert optim.resolve(load(words)).run_name not in names


def test_a_contest_and_the_trainer_name_the_child_alike(shards, trained, tmp_path):
    words = [*command(shards, tmp_path), "--init", f"run:{trained['adamw']}@8"]
    assert main(words) == 0
    assert only_run(tmp_path).name == resolved(tuple(words)).run_name


def test_child_resumes_without_its_parent(shards, trained, tmp_path, capsys):
    parent = shutil.copytree(trained["adamw"], tmp_path / "parent")
    assert main([*command(shards, tmp_path / "runs"), "--init", f"run:{parent}"]) == 0
    child = only_run(tmp_path / "runs")
    shutil.rmtree(parent)
    (child / "summary.json").unlink()  # as after a kill
    assert main([str(child / "config.toml")]) == 0
    assert "from step 12" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--init", "run:nowhere"], "nowhere does not exist; give the folder of a run"),
        (["--init", "nowhere"], r"init = 'nowhere': should be run:FOLDER or run:FOLDER@STEP"),
        (["--init", "PARENT@7"], r"no checkpoint of step 7; it has @4, @8, @12"),
        (["--init", "PARENT", "--model.n_embd", "64"], r"model.n_embd = 64, not 32"),
        (
            ["--init", "PARENT", "--optimizer.name", "lion", "--init_optimizer", "true"],
            "was trained with adamw, whose state lion cannot use",
        ),
        (["--init_optimizer", "true"], "init_optimizer = True: needs init as well"),
        (["--init", "TORN"], "is torn or corrupt; start from another checkpoint"),
        (["--init", "GONE"], "is gone; bring it back, or start from another checkpoint"),
    ],
)
def test_what_cannot_be_is_one_line(shards, trained, tmp_path, capsys, flags, said):
    torn = shutil.copytree(trained["adamw"], tmp_path / "torn")
    newest = checkpoints.found(torn / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    forms = {"PARENT": f"run:{trained['adamw']}", "TORN": f"run:{torn}",
             "GONE": f"run:{tmp_path}@4#{'0' * 16}"}  # fmt: skip
    words = []
    for word in flags:
        name, at, step = word.partition("@")
        words.append(forms.get(name, name) + at + step)
    assert main([*command(shards, tmp_path / "runs"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_parent_that_still_trains_must_be_given_with_a_step(shards, trained, tmp_path, capsys):
    from storage import lock

    parent = shutil.copytree(trained["adamw"], tmp_path / "parent")
    with lock(parent):
        words = command(shards, tmp_path / "runs")
        assert main([*words, "--init", f"run:{parent}"]) == 2
        assert "still trains; name one of its checkpoints" in capsys.readouterr().err
        assert main([*words, "--init", f"run:{parent}@4"]) == 0
