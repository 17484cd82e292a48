"""sample.py and export.py on real runs: weights, text, and one line for each mistake."""

import numpy as np
import pytest
import torch

import export
import sample
from analysis.trained import trained
from configs import ConfigError, Model
from data.vocabulary import Bytes
from record import checkpoints, huggingface
from record.runlog import read_metrics
from tests.jobs import command, only_run
from train_gpt2 import GPT, main


@pytest.fixture(scope="module")
def runs(shards, tmp_path_factory):
    """Finished runs of 12 updates; schedule-free evaluates other weights than it trains."""
    found = {}
    for name in ("adamw", "schedule_free_adamw"):
        folder = tmp_path_factory.mktemp(name)
        shape = ["--model.vocab_size", "257", "--checkpoint.every", "6", "--eval.every", "6"]
        assert main([*command(shards, folder), "--optimizer.name", name, *shape]) == 0
        found[name] = only_run(folder)
    return found


def loss_of(model, shards, tokens):
    text = np.fromfile(next(shards.glob("*val*.bin")), dtype="<u2", offset=1024)
    rows = torch.from_numpy(text[: tokens + 1].astype(np.int64))
    inputs, targets = rows[:-1].view(-1, 32), rows[1:].view(-1, 32)
    with torch.no_grad():
        return model(inputs, targets).item()


@pytest.mark.parametrize("name", ["adamw", "schedule_free_adamw"])
def test_weights_are_those_that_were_evaluated(runs, shards, name):
    lines = {x["step"]: x["val/loss"] for x in read_metrics(runs[name]) if "val/loss" in x}
    for step, words in ((12, ""), (6, "@6")):
        loss = loss_of(trained(f"{runs[name]}{words}", "cpu").model, shards, 2048)
        assert loss == pytest.approx(lines[step], abs=1e-5)


def test_the_same_seed_is_the_same_text_and_temperature_0_needs_none(runs, capsys):
    printed = []
    for flags in (["--seed", "7"], ["--seed", "7"], ["--seed", "8"], ["--temperature", "0"],
                  ["--temperature", "0", "--seed", "9"]):  # fmt: skip
        assert sample.main([str(runs["adamw"]), "--prompt", "ab", "--tokens", "40", *flags]) == 0
        printed.append(capsys.readouterr().out)
    assert all(text.startswith("ab") for text in printed)
    assert printed[0] == printed[1] != printed[2]
    assert printed[3] == printed[4] != printed[0]


def test_tokens_are_drawn_from_the_likeliest_as_often_as_the_model_says():
    """One token after a fixed context, many seeds, against the probabilities."""
    model = GPT.initialised(Model(vocab_size=8, block_size=4, n_layer=1, n_head=1,
                                              n_embd=8), 1)  # fmt: skip
    model.wte.weight.data[:8].normal_(generator=torch.Generator().manual_seed(4))
    context = torch.tensor([1, 2, 3, 4, 5])  # longer than the model's context
    drawn = [next(sample.continued(model, context, 1, 0.7, 3, seed)) for seed in range(2000)]
    with torch.no_grad():
        logits = model.logits(context[None, -4:])[0, -1] / 0.7
    kept = logits.topk(3).indices
    shares = logits[kept].softmax(-1)
    counted = np.bincount(drawn, minlength=8) / len(drawn)
    assert counted[kept] == pytest.approx(shares.detach().numpy(), abs=0.04)
    assert counted[kept].sum() == pytest.approx(1)


def test_characters_of_several_bytes_come_whole_and_a_text_ends_at_its_end():
    ids = [*"aé€".encode(), 256, *b"never"]
    assert list(sample.text(Bytes(), iter(ids))) == ["a", "é", "€"]
    assert list(sample.text(Bytes(), iter([0xE2, 0x82]))) == ["\N{REPLACEMENT CHARACTER}"]


def test_export_loads_in_transformers_with_equal_logits(runs, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    assert export.main([str(runs["schedule_free_adamw"]), str(tmp_path / "out")]) == 0
    there = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out").eval()
    tokens = torch.randint(257, (2, 32), generator=torch.Generator().manual_seed(1))
    here = trained(str(runs["schedule_free_adamw"]), "cpu").model
    torch.testing.assert_close(there(tokens).logits, here.logits(tokens), rtol=1e-5, atol=1e-5)
    assert sample.main([str(tmp_path / "out"), "--tokens", "5", "--prompt", "x"]) == 0
    capsys.readouterr()
    assert export.main([str(runs["adamw"]), str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds a model already; give a new folder" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{run}", "--prompt", "x" * 32], "the model's context holds 32"),
        (["{run}", "--prompt", "FILE:/no/such/file"], "No such file"),
        (["{run}@7"], "no such checkpoint; it has @6, @12"),
        (["{run}@x"], "after @ should be the step"),
        (["{empty}"], "is a run without checkpoints; let it train to one first"),
        (["{begun}"], "is a run without checkpoints; let it train to one first"),
        (["{empty}/.."], "holds no config.json with model.safetensors"),
        (["{run}", "--temperature", "-1"], "temperature should be 0 or more"),
        (["{other}"], "has a vocabulary of 300"),
    ],
)
def test_a_mistake_is_one_line(runs, shards, tmp_path, capsys, words, said):
    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.mkdir()
    (empty / "config.toml").write_text("")
    if words == ["{other}"]:
        assert main([*command(shards, other), "--model.vocab_size", "300"]) == 0
        other = only_run(other)
    capsys.readouterr()
    (tmp_path / "begun/checkpoints").mkdir(parents=True)
    names = {"run": runs["adamw"], "empty": empty, "other": other, "begun": tmp_path / "begun"}
    assert sample.main([word.format(**names) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_torn_checkpoint_is_passed_over(runs, tmp_path):
    copy = tmp_path / "run"
    (copy / "checkpoints").mkdir(parents=True)
    for path in checkpoints.found(runs["adamw"] / "checkpoints"):
        content = path.read_bytes()
        torn = checkpoints.step_of(path) == 12
        (copy / "checkpoints" / path.name).write_bytes(content[:-1] if torn else content)
    with pytest.raises(ConfigError, match="is torn or corrupt; give another"):
        trained(f"{copy}@12", "cpu")
    assert trained(str(copy), "cpu").source.endswith("at step 6")


def test_a_damaged_file_of_weights_is_one_line(tmp_path, capsys):
    shape = Model(vocab_size=257, block_size=8, n_layer=1, n_head=1, n_embd=8)
    huggingface.write(tmp_path, shape, GPT.initialised(shape, 1).state_dict(), {})
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    assert sample.main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.safetensors cannot be read" in line
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 8}')
    assert sample.main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no vocab_size, n_positions, n_layer, n_head" in line
