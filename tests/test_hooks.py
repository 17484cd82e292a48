"""Optimizers that need more of the loop than a step: with the trainer, alone and with two ranks."""

import pytest
import torch

from configs import Model
from record import checkpoints
from record.runlog import read_metrics
from tests.jobs import command, finish, only_run, ranks
from train_gpt2 import GPT, main

ARMS = {
    "schedule_free_adamw": ["--optimizer.lr", "3e-3"],
    "schedule_free_sgd": [],
    "prodigy": ["--optimizer.d0", "1e-4", "--optimizer.d_coef", "0.5"],
    "sophia_g": ["--optimizer.lr", "3e-3", "--optimizer.k", "3"],
}


def words(shards, runs, name, schedule="constant"):
    chosen = ["--optimizer.name", name, *ARMS[name], "--schedule.name", schedule]
    return [*command(shards, runs), *chosen]


def losses(runs):
    lines = read_metrics(only_run(runs))
    return [x[key] for key in ("train/loss", "val/loss") for x in lines if key in x]


def final_state(runs):
    newest = checkpoints.newest_whole(only_run(runs) / "checkpoints")
    return torch.load(newest, weights_only=True)


@pytest.mark.parametrize(
    "name",
    [x if x == "sophia_g" else pytest.param(x, marks=pytest.mark.slow) for x in ARMS],
)
def test_learns_alike_with_one_rank_and_with_two(name, shards, tmp_path):
    assert main(words(shards, tmp_path / "one", name)) == 0
    for rank in ranks(words(shards, tmp_path / "two", name), 2):
        finish(rank)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert two == pytest.approx(one, abs=1e-4)
    assert min(one) < one[0] - 0.05  # Prodigy finds its step, and overshoots


@pytest.mark.parametrize("name", ARMS)
def test_goes_on_from_a_checkpoint_to_the_same_bits(name, shards, tmp_path, capsys):
    """Checkpoints at steps 4, 8 and 12, evaluations at 0, 5, 10 and 12, curvature at 0, 3, ..."""
    arguments = words(shards, tmp_path / "runs", name)
    assert main([*arguments, "--checkpoint.every", "5"]) == 0  # at step 5 right after evaluating
    through, expected = losses(tmp_path / "runs"), final_state(tmp_path / "runs")
    directory = only_run(tmp_path / "runs")
    (last,) = (directory / "checkpoints").glob("step-00000012-*")
    last.unlink()
    (directory / "summary.json").unlink()
    assert main([*arguments, "--checkpoint.every", "5"]) == 0
    assert "from step 10" in capsys.readouterr().out
    assert losses(tmp_path / "runs") == through
    resumed = final_state(tmp_path / "runs")
    torch.testing.assert_close(resumed["model"], expected["model"], rtol=0, atol=0)
    one, two = resumed["optimizer"], expected["optimizer"]
    torch.testing.assert_close(one["state"], two["state"], rtol=0, atol=0)
    assert one["param_groups"] == two["param_groups"]


def test_a_decaying_schedule_is_allowed_with_a_warning(shards, tmp_path, capsys):
    assert main(words(shards, tmp_path / "runs", "schedule_free_adamw", "cosine")) == 0
    warnings = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning: ")]
    assert len(warnings) == 1
    assert "schedule 'cosine' decays" in warnings[0]


def test_labels_are_drawn_from_the_models_own_predictions():
    """In the proportions of the softmax, never a padded row."""
    shape = Model(vocab_size=50, block_size=64, n_layer=1, n_head=1, n_embd=16)
    model = GPT.initialised(shape, seed=1)
    with torch.no_grad():
        model.wte.weight.mul_(60)  # predictions far from uniform
    tokens = torch.randint(50, (1, 64), generator=torch.Generator().manual_seed(1))
    logits = model.logits(tokens)
    probabilities = logits.softmax(-1).detach()
    entropy = -(probabilities * probabilities.log()).sum(-1).mean()

    draws = [
        model(tokens, torch.rand(1, 64, generator=torch.Generator().manual_seed(seed))).item()
        for seed in range(400)
    ]
    assert sum(draws) / 400 == pytest.approx(entropy.item(), rel=0.02)
    assert probabilities.max(-1).values.mean() > 3 / 50

    highest = torch.full((1, 64), 1 - 2**-24)  # the largest float32 below 1
    by_hand = torch.nn.functional.cross_entropy(logits[0], probabilities[0].argmax(-1))
    assert model(tokens, highest).isfinite()
    middle = (probabilities.cumsum(-1) - probabilities / 2).gather(
        -1, probabilities.argmax(-1, keepdim=True)
    )[..., 0]
    torch.testing.assert_close(model(tokens, middle), by_hand)
