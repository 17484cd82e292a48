"""MuonClip against pytorch_optimizer's, and what it does to the logits of a GPT-2."""

import math

import pytest
import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.muon import base as reference

import train_gpt2
from configs import ConfigError, Model
from optim import build_optimizer, note_logits, watched_logits
from tests.optim import oracles_matrix as oracles
from tests.optim.test_contract import CountReads

HEADS, WIDTH = 2, 8
ATTENTION = "h.0.attn"
SHAPES = {"c_attn.weight": (3 * WIDTH, WIDTH), "c_attn.bias": (3 * WIDTH,), "c_proj": (8, 8)}
LOGITS = torch.tensor([3.0, 0.5], dtype=torch.float64)  # one head above tau, one below


def attention(**values):
    named = oracles.named_parameters(shapes=SHAPES)
    groups = [
        {"params": [named[key] for key in keys], "names": [f"{ATTENTION}.{key}" for key in keys]}
        | {"role": role}
        for role, keys in (("hidden", ["c_attn.weight", "c_proj"]), ("vector", ["c_attn.bias"]))
    ]
    return named, build_optimizer("muonclip", groups, lr=0.02, **values)


@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_equals_the_package_to_1e_7(monkeypatch, alpha):
    """Theirs has Q, K and V apart, and is told which is which by the groups."""
    monkeypatch.setattr(
        reference,
        "zero_power_via_newton_schulz_5",
        lambda g, num_steps, weights: (
            torch.stack([oracles.newton_schulz(x, num_steps) for x in g])
            if g.ndim == 3
            else oracles.newton_schulz(g, num_steps)
        ),
    )
    both = {"weight_decay": 0.1, "momentum": 0.9}
    named, ours = attention(tau=1.0, alpha=alpha, **both)
    apart = [torch.nn.Parameter(x.clone()) for x in named["c_attn.weight"].detach().chunk(3)]
    labels = [{"qk_clip": "query"}, {"qk_clip": "key"}, {}]
    groups = [
        {"params": [p], "use_muon": True, "attention_name": ATTENTION, **label}
        for p, label in zip(apart, labels, strict=True)
    ]
    clip = {"qk_clip_threshold": 1.0, "qk_clip_alpha": alpha}
    theirs = pytorch_optimizer.MuonClip(groups, lr=0.02, foreach=False, **clip, **both)
    for step in range(6):
        for name, p in named.items():
            p.grad = oracles.gradient(step, name, p)
        for p, g in zip(apart, named["c_attn.weight"].grad.chunk(3), strict=True):
            p.grad = g.clone()
        ours.update_logits({ATTENTION: LOGITS})
        ours.step()
        theirs.step(attention_max_logits={ATTENTION: LOGITS.float()})
    distance = (named["c_attn.weight"] - torch.cat(apart)).abs().max()
    assert distance < 1e-7 * named["c_attn.weight"].abs().max(), "their factors are float32"


def test_scales_the_rows_of_the_heads_above_tau_and_their_biases():
    clipped, one = attention(tau=1.0, alpha=0.25)
    free, two = attention()
    for named, optimizer in ((clipped, one), (free, two)):
        for name, p in named.items():
            p.grad = oracles.gradient(0, name, p)
        optimizer.update_logits({ATTENTION: LOGITS} if optimizer is one else {})
        optimizer.step()
    head = WIDTH // HEADS
    for name in ("c_attn.weight", "c_attn.bias"):
        ratio = clipped[name].detach() / free[name].detach()
        expected = torch.ones_like(ratio)
        expected[:head] = (1 / 3) ** 0.25
        expected[WIDTH : WIDTH + head] = (1 / 3) ** 0.75
        assert torch.allclose(ratio, expected, rtol=1e-12)
    assert torch.equal(clipped["c_proj"], free["c_proj"])


def test_logits_serve_one_step():
    named, optimizer = attention(tau=1.0)
    other, free = attention()
    optimizer.update_logits({ATTENTION: LOGITS})
    free.update_logits({})
    for step in range(2):
        for name in named:
            named[name].grad = oracles.gradient(step, name, named[name])
            other[name].grad = named[name].grad.clone()
        if step:
            for name, p in named.items():
                other[name].data.copy_(p.data)
        optimizer.step()
        free.step()
    assert torch.equal(named["c_attn.weight"], other["c_attn.weight"])


def test_every_k_updates():
    _, optimizer = attention(clip_every=3)
    assert [step for step in range(8) if optimizer.logits_due(step)] == [0, 3, 6]


def test_a_role_has_no_clip_every_of_its_own():
    with pytest.raises(ConfigError, match="cannot have its own clip_every"):
        attention(roles={"hidden": {"clip_every": 2}})


def test_the_curve_holds_the_last_logits_between_two_clips():
    named, optimizer = attention(clip_every=2)
    for step, given in enumerate(({ATTENTION: LOGITS}, {})):
        for name, p in named.items():
            p.grad = oracles.gradient(step, name, p)
        optimizer.update_logits(given)
        optimizer.step()
        with CountReads() as counter:
            found = optimizer.diagnostics()
        assert counter.reads == 0
        assert found == {"largest_logit": 3.0}


def test_says_once_that_it_was_given_no_logits(recwarn):
    """In a loop that does not know the hook; not at the steps between two clips."""
    named, optimizer = attention(clip_every=2)
    for step in range(3):
        for name, p in named.items():
            p.grad = oracles.gradient(step, name, p)
        optimizer.step()
    assert [str(w.message)[:42] for w in recwarn] == ["MuonClip was given no attention logits, so"]
    named, optimizer = attention(clip_every=2)
    for step in range(3):
        for name, p in named.items():
            p.grad = oracles.gradient(step, name, p)
        if optimizer.logits_due(step):
            optimizer.update_logits({ATTENTION: LOGITS})
        optimizer.step()
    assert len(recwarn) == 1


def test_an_attention_that_it_does_not_know_is_an_error():
    _, optimizer = attention()
    with pytest.raises(RuntimeError, match=r"no parameter 'h.7.attn.c_attn.weight'.*names") as e:
        optimizer.update_logits({"h.7.attn": LOGITS})
    assert "\n" not in str(e.value)


# ---------------------------------------------------------------- with a model

SHAPE = Model(vocab_size=16, block_size=160, n_layer=2, n_head=2, n_embd=16)


def model_and(**values):
    model = train_gpt2.GPT.initialised(SHAPE, seed=1)
    for p in model.parameters():
        p.data.mul_(10)
    return model, build_optimizer("muonclip", model.parameter_groups(), **values)


def tokens(rows=4):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(16, (rows, SHAPE.block_size + 1), generator=generator)


def given(model, optimizer, batches, monkeypatch, step=0, over_ranks=lambda x: x):
    """The logits that the optimizer is given of these forward passes."""
    received = {}
    monkeypatch.setattr(optimizer, "update_logits", received.update)
    with watched_logits(optimizer, model, step, over_ranks):
        for batch in batches:
            model(batch[:, :-1], batch[:, 1:])
    return received


def largest_logits(model, batch):
    """Of the first attention, from all its logits at once."""
    block = model.h[0]
    x = model.wte(batch[:, :-1]) + model.wpe(torch.arange(SHAPE.block_size))
    q, k, _ = block.attn.c_attn(block.ln_1(x)).split(SHAPE.n_embd, -1)
    q, k = (y.unflatten(-1, (SHAPE.n_head, -1)) for y in (q, k))
    logits = torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(SHAPE.n_embd / SHAPE.n_head)
    causal = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
    return torch.where(causal, logits, -math.inf).amax((0, 2, 3))


def test_the_logits_given_are_the_largest_causal_ones(monkeypatch):
    """The context, 160, is longer than the block in which they are computed, 128."""
    model, optimizer = model_and()
    logits = given(model, optimizer, [tokens()], monkeypatch)
    assert list(logits) == ["h.0.attn", "h.1.attn"]
    assert torch.allclose(logits["h.0.attn"], largest_logits(model, tokens()), rtol=1e-5)
    assert all(block.attn.largest_logits is None for block in model.h), "no longer watched"


def test_under_mup_they_are_those_of_its_scale():
    q, k = torch.randn(2, 3, 2, 5, 16, generator=torch.Generator().manual_seed(1)).unbind()
    found = {scale: torch.full((2,), -math.inf) for scale in (None, 8 / 16)}
    for scale, largest in found.items():
        note_logits(largest, q, k, scale)
    torch.testing.assert_close(found[8 / 16], 2 * found[None])  # 8 / d is twice 1 / sqrt(16)


def test_micro_batches_and_ranks_do_not_change_them(monkeypatch):
    model, optimizer = model_and()
    whole = given(model, optimizer, [tokens()], monkeypatch)
    rows = given(model, optimizer, tokens().split(1), monkeypatch)
    half = given(model, optimizer, [tokens()[2:]], monkeypatch)
    ranks = iter(half.values())
    first = [tokens()[:2]]
    both = given(model, optimizer, first, monkeypatch, over_ranks=lambda x: x.maximum(next(ranks)))
    for name, x in whole.items():
        assert torch.allclose(rows[name], x, rtol=1e-5)
        assert torch.allclose(both[name], x, rtol=1e-5)


def test_nothing_is_watched_when_it_is_not_due(monkeypatch):
    model, optimizer = model_and(clip_every=2)
    assert given(model, optimizer, [tokens()], monkeypatch, step=1) == {}
    plain = build_optimizer("muon", model.parameter_groups())
    assert given(model, plain, [tokens()], monkeypatch) == {}


def test_after_a_step_no_head_is_above_tau():
    """lr 0 moves nothing else, so that the first attention shows the clip alone."""
    model, optimizer = model_and(lr=0.0)
    before = largest_logits(model, tokens()).detach()
    tau = before.mean().item()
    for group in optimizer.param_groups:
        group["tau"] = tau
    with watched_logits(optimizer, model, 0, lambda x: x):
        model(tokens()[:, :-1], tokens()[:, 1:]).backward()
    optimizer.step()
    after = largest_logits(model, tokens()).detach()
    assert torch.allclose(after, before.clamp(max=tau), rtol=1e-4)
    assert optimizer.diagnostics()["largest_logit"] >= before.max() * (1 - 1e-5)
