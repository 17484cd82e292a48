"""The coordinate check: what it measures, by hand, and what it finds on a small model."""

import csv
import math

import pytest
import torch

from analysis.__main__ import main
from analysis.width import Measured, activations, attention_logits, lines, power
from configs import Model
from tests.jobs import command
from train_gpt2 import GPT

SHAPE = {"vocab_size": 97, "block_size": 24, "n_layer": 2, "n_head": 2, "n_embd": 32}
ON_CPU = ["--device", "cpu"]


def test_a_power_is_found_exactly_and_none_where_there_is_none():
    widths = (64, 128, 512)
    assert power(widths, [3 * n**-0.5 for n in widths]) == pytest.approx(-0.5, abs=1e-12)
    assert power(widths, [7.0] * 3) == pytest.approx(0, abs=1e-12)
    for value in (0.0, math.inf, math.nan):
        assert math.isnan(power(widths, [1.0, value, 2.0]))


@pytest.mark.parametrize("own", [{}, {"parametrization": "mup", "base_n_embd": 8}])
def test_activations_are_those_of_the_model(own):
    model = GPT.initialised(Model(**SHAPE, **own), 1)
    tokens = torch.randint(97, (3, 24), generator=torch.Generator().manual_seed(1))
    found = activations(model, tokens)
    assert list(found) == [
        "embedding",
        "h.0 attention logits", "h.0 attention", "h.0 MLP",
        "h.1 attention logits", "h.1 attention", "h.1 MLP",
        "logits",
    ]  # fmt: skip
    x, block = model.wte(tokens) + model.wpe(torch.arange(24)), model.h[0]
    assert torch.equal(found["embedding"], x)
    q, k, _ = block.attn.c_attn(block.ln_1(x)).split(32, dim=-1)
    scale = 8 / 16 if own else 1 / 4  # heads of 16
    by_hand = scale * (q[1, 20, 16:] @ k[1, 3, 16:])
    pair = 20 * 21 // 2 + 3  # pairs lie row by row
    torch.testing.assert_close(found["h.0 attention logits"][1, 1, pair], by_hand)
    x = x + block.attn(block.ln_1(x))
    torch.testing.assert_close(found["h.0 MLP"], block.mlp(block.ln_2(x)))
    assert torch.equal(found["logits"], model.logits(tokens))
    assert not any(module._forward_hooks for module in model.modules())


def test_masked_pairs_do_not_count():
    qkv = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(3))
    qkv[:, :, 4:8] *= torch.tensor([1.0, 1, 1, 1, 1e6])[None, :, None]  # the last key
    shape = Model(**{**SHAPE, "n_embd": 4})
    logits = attention_logits(qkv, shape)
    assert logits.shape == (2, 2, 15)
    assert (logits.abs() > 1e3).sum() <= 4  # it is seen by the last query alone


@pytest.fixture(scope="module")
def table(shards, tmp_path_factory):
    """Rows of the check of AdamW at its usual rate, by (parametrization, place, width)."""
    out = tmp_path_factory.mktemp("width") / "width.html"
    words = [*command(shards, out.parent), "--model.n_layer", "1", "--optimizer.lr", "1e-2"]
    own = ["--widths", "32,256", "--tokens", "256", "--seeds", "2", "--steps", "3"]
    assert main(["width", *words, *own, "--out", str(out), *ON_CPU]) == 0
    assert "plotly" in out.read_text()
    rows = csv.DictReader(out.with_suffix(".csv").open())
    return {(r["parametrization"], r["place"], int(r["width"])): r for r in rows}


def growth(table, parametrization, place, kind="change"):
    wide, narrow = (float(table[parametrization, place, n][kind]) for n in (256, 32))
    return wide / narrow


def test_the_changes_of_a_standard_model_grow_with_its_width_and_those_of_mup_do_not(table):
    for place in ("h.0 attention logits", "h.0 MLP", "logits"):
        assert growth(table, "standard", place) > 4, place
        assert growth(table, "mup", place) < 2.5, place
    assert growth(table, "mup", "embedding") == pytest.approx(1, rel=0.1)


def test_at_the_narrowest_width_only_the_scale_of_attention_differs(table):
    """Of a base width: heads are of 16 here, so that 8 / d is not 1 / sqrt(d)."""
    for place in ("embedding", "h.0 attention", "h.0 MLP", "logits"):
        standard, mup = (table[kind, place, 32] for kind in ("standard", "mup"))
        assert float(standard["size"]) == pytest.approx(float(mup["size"]), rel=0.1), place


def test_a_model_that_diverges_is_nan_in_the_table(shards, tmp_path, capsys):
    words = [*command(shards, tmp_path), "--model.n_layer", "1", "--optimizer.lr", "1e20"]
    own = ["--widths", "16,32", "--tokens", "32", "--seeds", "1", "--out", f"{tmp_path}/w.html"]
    assert main(["width", *words, *own, *ON_CPU]) == 0
    last = [x for x in capsys.readouterr().out.splitlines() if x.startswith("  logits")]
    assert [x.split() for x in last] == [["logits", *["nan"] * 6]] * 2


def test_the_table_has_a_line_for_each_place_and_parametrization():
    rows = [Measured("mup", "logits", n, 2.0 * n, 5.0) for n in (64, 128)]
    (head, ends, line) = lines(rows)
    assert head.split() == ["mup", "change", "size"]
    assert ends.split() == ["at", "64", "at", "128", "power"] * 2
    assert line.split() == ["logits", "5", "5", "0.00", "128", "256", "1.00"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--widths", "32,63"], "[model] n_embd = 63 must be divisible by n_head = 2"),
        (["--optimizer.name", "soap"], "no rule by width is known for 'soap'; give optimizer.name"),
        (["--tokens", "31"], "--tokens 31 is less than one sequence of 32; give more"),
        (["--seed", "x"], "seed = 'x'"),
        (["--optimizer.lrr", "1"], "unknown key 'optimizer.lrr'"),
        (["--device", "cuda"], "no GPU is visible; use --device cpu"),
        (["--init", "hf:gpt2"], "init: weights of one width fit no other; leave it out"),
    ],
)
def test_a_mistake_is_one_line(shards, tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("analysis.width._train", lambda *_: pytest.fail("trained"))
    assert main(["width", *command(shards, tmp_path), "--widths", "32,64", *ON_CPU, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_widths_that_are_none_are_refused(capsys):
    for given in ("64", "128,64", "64,64", "a,b"):
        with pytest.raises(SystemExit):
            main(["width", "--widths", given])
        assert f"'{given}' should be ascending widths" in capsys.readouterr().err
