"""Weights in Hugging Face's form: theirs here, ours there, and what is refused."""

import json
import re

import pytest
import torch

from configs import ConfigError, Model
from record import huggingface
from record.checkpoints import weights_hash
from record.runlog import read_metrics, read_record
from tests.jobs import command, only_run
from train_gpt2 import GPT, main

transformers = pytest.importorskip("transformers")
SHAPE = Model(vocab_size=97, block_size=24, n_layer=2, n_head=4, n_embd=32)


@pytest.fixture(scope="module")
def theirs():
    """A GPT-2 of theirs whose every tensor is random, biases and norms too."""
    torch.manual_seed(1)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=97, n_positions=24, n_layer=2, n_head=4, n_embd=32,
            bos_token_id=96, eos_token_id=96, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        )
    ).eval()  # fmt: skip
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("hf")
    theirs.save_pretrained(path)
    return path


TOKENS = torch.randint(97, (3, 24), generator=torch.Generator().manual_seed(2))


def test_their_model_has_the_same_logits_here(theirs, folder):
    assert huggingface.shape_of(folder) == SHAPE
    model = GPT(SHAPE)
    model.load_state_dict(huggingface.read(folder))
    torch.testing.assert_close(model.logits(TOKENS), theirs(TOKENS).logits, rtol=1e-5, atol=1e-5)
    assert not model.wte.weight[97:].any()


@pytest.mark.parametrize("own", [{}, {"parametrization": "mup", "base_n_embd": 12}])
def test_our_model_has_the_same_logits_there(tmp_path, own):
    """With muP, whose factors are in the weights there."""
    shape = SHAPE.model_copy(update=own)
    model = GPT.initialised(shape, 3)
    for name, p in model.named_parameters():
        if p.ndim == 1 or "c_attn" in name:
            torch.nn.init.normal_(p, std=0.3)
    huggingface.write(tmp_path / "out", shape, model.state_dict(), {"trained_by": "me"})
    there = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(there(TOKENS).logits, model.logits(TOKENS), rtol=1e-5, atol=1e-5)
    back = GPT(SHAPE)
    back.load_state_dict(huggingface.read(tmp_path / "out"))
    if not own:
        assert weights_hash(back) == weights_hash(model)


def run(shards, runs, folder, *flags):
    values = SHAPE.model_dump().items()
    shape = [word for key, x in values for word in (f"--model.{key}", str(x))]
    length = ["--model.vocab_size", "257", "--eval.tokens", "192", "--train.batch_tokens", "192"]
    return main([*command(shards, runs), *shape, *length, "--init", f"hf:{folder}", *flags])


@pytest.fixture(scope="module")
def bytes_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes")
    shape = SHAPE.model_copy(update={"vocab_size": 257})
    huggingface.write(path, shape, GPT.initialised(shape, 5).state_dict(), {})
    return path


def test_a_run_starts_from_them_and_is_known_by_their_content(shards, tmp_path, bytes_folder):
    assert run(shards, tmp_path / "a", bytes_folder) == 0
    assert run(shards, tmp_path / "b", bytes_folder, "--seed", "2") == 0
    one, other = only_run(tmp_path / "a"), only_run(tmp_path / "b")
    losses = [read_metrics(x)[0]["val/loss"] for x in (one, other)]
    assert losses[0] == losses[1]  # the seed does not make the weights
    record = read_record(one)
    assert record["parent"]["content"] == huggingface.content(bytes_folder)
    moved = bytes_folder.parent / "moved"
    moved.mkdir()
    for file in bytes_folder.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert run(shards, tmp_path / "a", moved) == 0  # finished already, though it was moved
    assert only_run(tmp_path / "a") == one


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--init_optimizer", "true"], "published weights come without a state"),
        (["--model.n_layer", "3"], "has another model than this run (model.n_layer = 3, not 2)"),
    ],
)
def test_what_does_not_fit_is_one_line(shards, tmp_path, bytes_folder, capsys, flags, said):
    assert run(shards, tmp_path, bytes_folder, *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_folder_without_a_model_is_named(tmp_path, shards, capsys):
    assert run(shards, tmp_path / "runs", tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path} holds no config.json with model.safetensors" in line


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model_type", "llama", "a model of type 'llama', not gpt2"),
        ("activation_function", "relu", "activation_function = relu"),
        ("n_inner", 64, "n_inner = 64, but GPT-2 here has 128"),
        ("layer_norm_epsilon", 1e-6, "layer_norm_epsilon = 1e-06"),
    ],
)
def test_another_architecture_is_refused(tmp_path, folder, key, value, said):
    table = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(table | {key: value}))
    with pytest.raises(ConfigError, match=re.escape(said)):
        huggingface.shape_of(tmp_path)


def test_a_missing_or_misshapen_tensor_is_named(tmp_path, folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    wrong = tensors | {"transformer.ln_f.bias": torch.zeros(3)}
    save_file(wrong, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"'ln_f\.bias' has shape \(3,\), not \(32,\)"):
        huggingface.read(tmp_path)
    del tensors["transformer.ln_f.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"no tensor 'ln_f\.bias'"):
        huggingface.read(tmp_path)
