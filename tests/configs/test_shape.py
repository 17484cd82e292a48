"""The parametrization: what it makes of a width, and that the standard one is as it was."""

import math

import pytest

from configs import ConfigError, Model, load
from configs.loading import PRESETS

QUICKSTART = str(PRESETS / "quickstart.toml")
MUP = ["--model.parametrization", "mup"]
SHAPE = {"vocab_size": 257, "block_size": 16, "n_layer": 8, "n_head": 4, "n_embd": 512}


def test_the_standard_parametrization_leaves_a_run_its_identity():
    plain, named = load([QUICKSTART]), load([QUICKSTART, "--model.parametrization", "standard"])
    assert plain == named
    assert set(plain.table()["model"]) == {
        "vocab_size", "block_size", "n_layer", "n_head", "n_embd"}  # fmt: skip
    mup = load([QUICKSTART, *MUP, "--model.base_n_embd", "64"])
    other = load([QUICKSTART, *MUP, "--model.base_n_embd", "128"])
    assert len({plain.identity, mup.identity, other.identity}) == 3


def test_factors_of_a_model_of_four_times_the_base_width():
    standard, mup = Model(**SHAPE), Model(**SHAPE, parametrization="mup", base_n_embd=128)
    assert (standard.width_ratio, standard.readout, standard.attention_scale) == (1, 1, None)
    assert (mup.width_ratio, mup.readout, mup.attention_scale) == (4, 1 / 4, 8 / 128)
    for name, std in {
        "wte.weight": 0.02,
        "wpe.weight": 0.02,
        "h.3.attn.c_attn.weight": 0.02 / 2,
        "h.3.mlp.c_fc.weight": 0.02 / 2,
        "h.3.attn.c_proj.weight": 0.02 / math.sqrt(16) / 2,
        "h.3.mlp.c_proj.weight": 0.02 / math.sqrt(16) / 2,
    }.items():
        assert mup.initial_std(name) == pytest.approx(std, rel=1e-15)
        scaled = 2 if name.startswith("h.") else 1
        assert standard.initial_std(name) == pytest.approx(scaled * std, rel=1e-15)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (MUP, "[model] parametrization = mup needs base_n_embd: the width at which"),
        (["--model.base_n_embd", "64"], "base_n_embd = 64 is for parametrization = mup; give that"),
        ([*MUP, "--model.base_n_embd", "0"], "model.base_n_embd = 0: should be greater than 0"),
        (["--model.parametrization", "mu"], "model.parametrization = 'mu': should be 'standard'"),
    ],
)
def test_a_mistake_is_one_line(words, said):
    with pytest.raises(ConfigError) as caught:
        load([QUICKSTART, *words])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
