"""Muon against torch.optim.Muon in full precision, and what orthogonalisation promises."""

import pytest
import torch

from configs.validation import ConfigError
from optim import build_optimizer
from optim.core.orthogonal import orthogonal
from tests.optim import oracles_matrix as oracles
from tests.optim import oracles_muon

MATRICES = {"tall": (12, 8), "wide": (8, 12), "square": (8, 8), "another": (12, 8)}


@pytest.fixture
def full_precision(monkeypatch):
    """torch.optim.Muon without its cast to bfloat16, which is `bfloat16()` up to torch 2.14."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    to = torch.Tensor.to

    def without_cast(tensor, *words, **named):
        cast = named.get("dtype") == torch.bfloat16
        return tensor.clone() if cast else to(tensor, *words, **named)

    monkeypatch.setattr(torch.Tensor, "to", without_cast)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
def test_equals_torchs(full_precision, scale, nesterov, dtype, tolerance):
    both = {"lr": 0.02, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.1}
    ours, theirs = (oracles.named_parameters(dtype, MATRICES) for _ in range(2))
    oracles.replay(build_optimizer("muon", ours.values(), scale=scale, **both), ours)
    oracles.replay(torch.optim.Muon(theirs.values(), adjust_lr_fn=scale, **both), theirs)
    assert oracles.distance(ours, {k: p.detach() for k, p in theirs.items()}) < tolerance


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_rest_is_adamw_at_a_ratio_of_lr(dtype):
    shapes = {"wte": (10, 6), "bias": (8,), "one": (1,), "c_proj": (4, 4)}
    named = oracles.named_parameters(dtype, shapes)
    same = oracles.named_parameters(dtype, shapes)
    groups = [
        {"params": [named["wte"]], "role": "embedding"},
        {"params": [named["c_proj"]], "role": "hidden"},
        {"params": [named["bias"], named["one"]], "role": "vector", "weight_decay": 0.0},
    ]
    quarter = {role: {"lr_ratio": 0.25} for role in ("embedding", "vector")}
    optimizer = build_optimizer("muon", groups, roles=quarter, lr=0.1, betas=(0.8, 0.9), eps=1e-6)
    oracles.replay(optimizer, named)
    hyperparameters = {"lr": 0.025, "betas": (0.8, 0.9), "eps": 1e-6}
    for names, weight_decay in ((["wte"], 0.1), (["bias", "one"], 0.0)):
        chosen = {name: same[name] for name in names}
        adamw = torch.optim.AdamW(chosen.values(), weight_decay=weight_decay, **hyperparameters)
        oracles.replay(adamw, chosen)
    ours = {name: p for name, p in named.items() if name != "c_proj"}
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert oracles.distance(ours, {k: p.detach() for k, p in same.items()}) < tolerance


def test_split_qkv_is_three_matrices():
    fused = oracles.named_parameters(shapes={"c_attn": (18, 6)})
    apart = dict(zip("qkv", fused["c_attn"].detach().clone().chunk(3), strict=True))
    apart = {name: torch.nn.Parameter(p.clone()) for name, p in apart.items()}
    names = ["h.0.attn.c_attn.weight"]
    groups = [{"params": list(fused.values()), "names": names, "role": "hidden"}]
    one = build_optimizer("muon", groups, lr=0.1, split_qkv=True)
    three = build_optimizer("muon", apart.values(), lr=0.1)
    for step in range(5):
        whole = fused["c_attn"].grad = oracles.gradient(step, "c_attn", fused["c_attn"])
        for p, g in zip(apart.values(), whole.chunk(3), strict=True):
            p.grad = g.clone()
        one.step()
        three.step()
    assert torch.allclose(fused["c_attn"], torch.cat(list(apart.values())), rtol=0, atol=1e-12)
    whole = oracles.named_parameters(shapes={"c_attn": (18, 6)})
    groups = [{"params": list(whole.values()), "names": names, "role": "hidden"}]
    oracles.replay(build_optimizer("muon", groups, lr=0.1, split_qkv=False), whole, steps=5)
    assert not torch.allclose(fused["c_attn"], whole["c_attn"], atol=1e-3)


@pytest.mark.parametrize("method", ["newton_schulz", "polar_express", "turbo", "polar"])
@pytest.mark.parametrize("normalise_rows", [True, False])
@pytest.mark.parametrize("renormalise", [True, False])
def test_options_equal_the_oracle_to_1e_10(method, normalise_rows, renormalise):
    both = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    both |= {"normalise_rows": normalise_rows, "renormalise": renormalise}
    ours = oracles.named_parameters(shapes=MATRICES)
    options = {"orthogonalisation": method, "gram": True, "scale": "original"}
    oracles.replay(build_optimizer("muon", ours.values(), **both, **options), ours, steps=4)
    start = oracles.named_parameters(shapes=MATRICES)
    theirs = oracles.oracle(lambda p: oracles_muon.muon(p, method=method, **both), start, steps=4)
    assert oracles.distance(ours, theirs) < 1e-10


@pytest.mark.parametrize("name", ["muon", "normuon"])
def test_more_steps_than_polynomials_are_refused_before_the_first_step(name):
    p = torch.nn.Parameter(torch.ones(4, 4))
    build_optimizer(name, [p], orthogonalisation="polar_express", ns_steps=5)
    with pytest.raises(ConfigError, match=r"ns_steps = 7: 'polar_express' has 5") as caught:
        build_optimizer(name, [p], orthogonalisation="polar_express", ns_steps=7)
    assert "\n" not in str(caught.value)


def test_a_fused_matrix_has_to_be_divisible():
    names = ["h.0.attn.c_attn.weight"]
    groups = [{"params": [torch.nn.Parameter(torch.ones(16, 4))], "names": names}]
    with pytest.raises(ConfigError, match=r"'h.0.attn.c_attn.weight' has 16 rows.*split_qkv") as e:
        build_optimizer("muon", groups)
    assert "\n" not in str(e.value)


def test_no_matrix_is_an_error():
    groups = [{"params": [torch.nn.Parameter(torch.ones(4, 4))], "role": "embedding"}]
    for params in ([torch.nn.Parameter(torch.ones(4))], groups):
        with pytest.raises(ConfigError, match=r"no matrix to act on.*use adamw") as caught:
            build_optimizer("muon", params)
        assert "\n" not in str(caught.value)


def test_singular_values_end_up_near_one():
    u, _ = torch.linalg.qr(torch.randn(96, 32, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64))
    values = torch.logspace(-2, 0, 32, dtype=torch.float64)
    values /= values.norm()
    values = values[values > 1e-2]
    k = len(values)
    x = (u[:, :k] * values) @ v[:, :k].T
    for matrix in (x, x.T):
        result = torch.linalg.svdvals(orthogonal(matrix[None])[0])[:k]
        assert result.min() > 0.68
        assert result.max() < 1.14
    gaussian = torch.randn(256, 64, dtype=torch.float64)
    result = torch.linalg.svdvals(orthogonal(gaussian[None])[0])
    assert result.min() > 0.68
    assert result.max() < 1.14


@pytest.mark.parametrize("name", ["muon", "normuon"])
def test_the_scale_of_the_gradient_is_irrelevant(name):
    small, large = (oracles.named_parameters(shapes=MATRICES) for _ in range(2))
    oracles.replay(build_optimizer(name, small.values(), lr=0.1), small, scale=1e-3)
    oracles.replay(build_optimizer(name, large.values(), lr=0.1), large, scale=1e3)
    assert oracles.distance(small, {k: p.detach() for k, p in large.items()}) < 1e-10


def test_match_rms_adamw_gives_an_update_of_rms_a_fifth():
    named = oracles.named_parameters(shapes={"c_fc": (256, 64)})
    before = named["c_fc"].detach().clone()
    optimizer = build_optimizer("muon", named.values(), lr=1.0, weight_decay=0.0)
    oracles.replay(optimizer, named, steps=1)
    rms = (named["c_fc"] - before).square().mean().sqrt().item()
    assert 0.2 * 0.68 < rms < 0.2 * 1.14
