"""The model is GPT-2: shapes, numbers, logits of the reference implementation."""

import math
import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch._inductor.utils import run_and_get_code

from configs import Model, load, size
from configs.loading import PRESETS
from record.checkpoints import weights_hash
from train_gpt2 import GPT

SMALL = Model(vocab_size=97, block_size=24, n_layer=3, n_head=4, n_embd=32)


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        (None, 124_439_808),
        ("gpt2_350m", 354_823_168),
        ("gpt2_774m", 774_030_080),
        ("gpt2_1558m", 1_557_611_200),
    ],
)
def test_presets_have_gpt2s_parameter_counts(preset, parameters):
    overlay = [str(PRESETS / "model" / f"{preset}.toml")] if preset else []
    config = load([str(PRESETS / "gpt2_124m.toml"), *overlay])
    with torch.device("meta"):
        model = GPT(config.model)
    padding = len(model.wte.weight) - config.model.vocab_size
    own = sum(p.numel() for p in model.parameters()) - padding * config.model.n_embd
    assert size.parameters(config.model) == own == parameters


def test_logits_equal_hugging_faces_gpt2_given_its_weights():
    transformers = pytest.importorskip("transformers")
    reference = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=97,
            bos_token_id=0,
            eos_token_id=0,
            n_positions=24,
            n_embd=32,
            n_layer=3,
            n_head=4,
            initializer_range=0.2,
        )
    ).eval()
    model = GPT.initialised(SMALL, seed=0)
    weights = reference.transformer.state_dict()
    with torch.no_grad():
        for name, p in model.named_parameters():
            theirs = weights[name]
            if p.ndim == 2 and name.startswith("h."):
                theirs = theirs.T  # their linear maps are stored (in, out)
            p[: len(theirs)] = theirs
    tokens = torch.randint(97, (5, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = reference(tokens).logits
        ours = model.logits(tokens)
    assert theirs.abs().max() > 1  # not all alike
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_padded_rows_change_neither_the_loss_nor_the_gradient_and_stay_zero():
    model = GPT.initialised(SMALL, seed=3)
    assert model.wte.num_embeddings == 128
    tokens = torch.randint(97, (4, 25), generator=torch.Generator().manual_seed(2))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    loss = model(inputs, targets)
    by_hand = -F.log_softmax(model.logits(inputs), -1).gather(2, targets[..., None]).mean()
    torch.testing.assert_close(loss, by_hand)
    assert abs(loss.item() - math.log(97)) < 0.1  # and not log(128)
    loss.backward()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    optimizer.step()
    assert torch.all(model.wte.weight[97:] == 0)


def test_initial_weights_follow_gpt2():
    model = GPT.initialised(
        Model(vocab_size=1000, block_size=128, n_layer=8, n_head=4, n_embd=128), 0
    )
    for name, p in model.named_parameters():
        if p.ndim < 2:
            assert torch.all(p == (1.0 if "ln_" in name and name.endswith("weight") else 0.0)), name
        else:
            weights = p[:1000] if name == "wte.weight" else p
            std = 0.02 / math.sqrt(16) if name.endswith("c_proj.weight") else 0.02
            assert weights.std().item() == pytest.approx(std, rel=0.03), name


def test_at_its_base_width_with_heads_of_64_mup_is_the_standard_model_to_the_bit():
    shape = {"vocab_size": 97, "block_size": 24, "n_layer": 2, "n_head": 2, "n_embd": 128}
    tokens = torch.randint(97, (5, 24), generator=torch.Generator().manual_seed(1))
    models = [
        GPT.initialised(Model(**shape, **own), 1)
        for own in ({}, {"parametrization": "mup", "base_n_embd": 128})
    ]
    assert weights_hash(models[0]) == weights_hash(models[1])
    with torch.no_grad():
        assert torch.equal(models[0].logits(tokens), models[1].logits(tokens))


def test_a_wider_mup_model_divides_hidden_weights_logits_and_products_of_queries_and_keys():
    shape = {"vocab_size": 97, "block_size": 24, "n_layer": 1, "n_head": 1, "n_embd": 256}
    standard = GPT.initialised(Model(**shape), 1)
    mup = GPT.initialised(Model(**shape, parametrization="mup", base_n_embd=64), 1)
    tokens = torch.randint(97, (5, 24), generator=torch.Generator().manual_seed(1))
    for (name, ours), theirs in zip(mup.named_parameters(), standard.parameters(), strict=True):
        factor = 1 / 2 if name.startswith("h.") and ours.ndim == 2 else 1
        assert torch.equal(ours, factor * theirs), name
    with torch.no_grad():
        for name, p in standard.named_parameters():
            if name.startswith("h.") and p.ndim == 2:
                p /= 2
        standard.h[0].attn.c_attn.weight[:256] *= (8 / 256) * math.sqrt(256)  # 8 / d in the place
        torch.testing.assert_close(mup.logits(tokens), standard.logits(tokens) / 4)


def test_initial_weights_are_a_function_of_the_seed_alone():
    hashes = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(hashes))  # the global generator must not matter
        hashes.append(weights_hash(GPT.initialised(SMALL, seed)))
    assert hashes[0] == hashes[1] != hashes[2]


def test_groups_hold_every_parameter_once_by_role_and_vectors_do_not_decay():
    model = GPT.initialised(SMALL, 0)
    groups = {group["role"]: group for group in model.parameter_groups()}
    assert set(groups) == {"hidden", "embedding", "vector"}
    held = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert groups["embedding"]["names"] == ["wte.weight", "wpe.weight"]
    assert all(name.startswith("h.") for name in groups["hidden"]["names"])
    assert all(p.ndim < 2 for p in groups["vector"]["params"])
    assert groups["vector"]["weight_decay"] == 0.0
    for group in groups.values():
        by_name = dict(model.named_parameters())
        assert all(by_name[n] is p for n, p in zip(group["names"], group["params"], strict=True))


def test_flops_per_token_are_those_of_the_definition():
    n = 124_439_808 - 1024 * 768
    assert size.flops_per_token(load([]).model) == 6 * n + 12 * 12 * 768 * 1024


def test_no_position_sees_a_later_one():
    model = GPT.initialised(SMALL, 0)
    tokens = torch.arange(24)[None] % 97
    with torch.no_grad():
        full = model.logits(tokens)
        for a, b in pairwise((1, 7, 24)):
            torch.testing.assert_close(model.logits(tokens[:, :a]), full[:, :a], atol=1e-5, rtol=0)
            torch.testing.assert_close(model.logits(tokens[:, :b]), full[:, :b], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("vocab_size", "rows"), [(50257, 50304), (64, 64), (65, 128), (4161, 4224)]
)
def test_the_embedding_is_padded_to_the_next_multiple_of_64(vocab_size, rows):
    with torch.device("meta"):
        model = GPT(Model(vocab_size=vocab_size, block_size=4, n_layer=1, n_head=1, n_embd=8))
    assert model.wte.num_embeddings == rows


def test_weights_are_drawn_in_the_order_of_their_names_and_padding_draws_none():
    weights = dict(GPT.initialised(SMALL, seed=5).named_parameters())
    generator = torch.Generator().manual_seed(5)
    for name, p in weights.items():
        if p.ndim > 1:
            rows = p[:97] if name == "wte.weight" else p
            std = 0.02 / math.sqrt(6) if name.endswith("c_proj.weight") else 0.02
            expected = torch.empty(rows.shape).normal_(0, std, generator=generator)
            assert torch.equal(rows, expected), name


@pytest.mark.parametrize("labels", ["given", "drawn"])
def test_compiled_it_masks_the_padded_columns_and_is_the_same_function(labels):
    model = GPT.initialised(SMALL, 1)
    tokens = torch.randint(97, (4, 24), generator=torch.Generator().manual_seed(1))
    targets = tokens if labels == "given" else torch.linspace(0, 1, 96).view(4, 24)
    results = []
    for compiled in (model, torch.compile(model, backend="aot_eager", dynamic=False)):
        loss = compiled(tokens, targets)
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
        assert not model.wte.weight.grad[97:].any()
        model.zero_grad()
    for plain, masked in zip(*results, strict=True):
        torch.testing.assert_close(masked, plain, rtol=1e-5, atol=1e-7)
    torch._dynamo.reset()


@pytest.mark.slow  # inductor calls the C++ compiler
def test_compiled_the_logits_are_stored_once_and_in_bfloat16(monkeypatch):
    """Float32 logits of a GPT-2 micro-batch of 64 would take 12.3 GiB."""
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    shape = Model(vocab_size=1000, block_size=64, n_layer=1, n_head=2, n_embd=64)
    model, tokens = GPT.initialised(shape, 0), torch.zeros(4, 64, dtype=torch.int64)
    compiled = torch.compile(model, dynamic=False)

    def passes():
        with torch.autocast("cpu", torch.bfloat16):
            loss = compiled(tokens, tokens)
        loss.backward()

    _, codes = run_and_get_code(passes)
    made = re.findall(r"empty_strided_cpu\(\(([\d, ]*)\), .*?, torch\.(\w+)\)", "\n".join(codes))
    sizes = [(math.prod(int(n) for n in dims.split(",") if n.strip()), kind) for dims, kind in made]
    assert len(sizes) > 20, "the code is read"
    assert [kind for size, kind in sizes if size >= 4 * 64 * 1000] == ["bfloat16"]
    torch._dynamo.reset()
