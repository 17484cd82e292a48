"""What updates show of themselves, against closed forms and torch's own arithmetic."""

import math
from types import SimpleNamespace

import pytest
import torch

import optim
from configs import Batch
from optim.core.inside import SAMPLE, Inside, _stride
from optim.core.ownership import Owned

ALONE = SimpleNamespace(rank=0, sum=lambda tensor: tensor)
SHAPES = {"h.0.w": (40, 48), "wte": (7, 6), "b": (5,)}


def build(name, wrap=None, **values):
    generator = torch.Generator().manual_seed(3)
    params = {k: torch.nn.Parameter(torch.randn(s, generator=generator)) for k, s in SHAPES.items()}
    groups = [
        {"role": role, "params": [params[name]], "names": [name]}
        for role, name in zip(("hidden", "embedding", "vector"), SHAPES, strict=True)
    ]
    return optim.build_optimizer(name, groups, wrap=wrap, total_steps=50, **values), params


def batch(micro=4, micro_batches=1, ranks=1):
    rows = micro * micro_batches
    return Batch(size=rows * ranks, rows=rows, micro=micro, block_size=8)


def step(inside, optimizer, params, number=0, seed=0, scale=1.0):
    """One update with random gradients, which reach the hooks by a real pass backward."""
    generator = torch.Generator().manual_seed(seed)
    for p in params.values():
        p.grad = None
    with inside.gradients(number):
        loss = sum(
            (p * scale * torch.randn(p.shape, generator=generator)).sum() for p in params.values()
        )
        loss.backward()
    grads = {name: p.grad.clone() for name, p in params.items()}
    norm = torch.cat([g.flatten() for g in grads.values()]).norm().item()
    before = {name: p.detach().clone() for name, p in params.items()}
    with inside.update(norm, applied=True):
        optimizer.step()
    return grads, {name: p.detach() - before[name] for name, p in params.items()}


def test_sgd_without_momentum_and_decay_has_gain_one_everywhere():
    optimizer, params = build("sgd", lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0)
    inside = Inside(1, optimizer, batch(), ALONE)
    step(inside, optimizer, params)
    found = inside.found
    assert found["tensors"] == list(SHAPES)
    assert found["roles"] == ["hidden", "embedding", "vector"]
    for name in ("gain", "gain_p5", "gain_p50", "gain_p95", "cosine"):
        assert found[name] == pytest.approx([1.0] * 3, rel=1e-3), name
    assert "withheld" not in found
    assert "noise" not in found  # one micro-batch


def test_sgd_sai_has_a_constant_gain_for_each_tensor_that_its_first_gradient_sets():
    optimizer, params = build("sgd_sai", lr=1e-3, momentum=0.0, weight_decay=0.0)
    inside = Inside(1, optimizer, batch(), ALONE)
    gains = []
    for number in range(3):
        grads, _ = step(inside, optimizer, params, number, seed=number, scale=1 + number)
        if number == 0:
            snr = [float(g.norm() / g.std()) for g in grads.values()]
        gains.append(inside.found["gain"])
        assert inside.found["gain_p5"] == pytest.approx(inside.found["gain_p95"], rel=2e-3)
    for found in gains:
        assert found == pytest.approx(snr, rel=2e-3)


def test_norms_ratio_and_cosine_are_those_of_the_weights_before_and_the_step():
    optimizer, params = build("adamw", lr=1e-2, weight_decay=0.1)
    optimizer.param_groups[1]["lr"] = 3e-2
    inside = Inside(1, optimizer, batch(), ALONE)
    for number in range(3):
        before = {name: p.detach().clone() for name, p in params.items()}
        grads, updates = step(inside, optimizer, params, number, seed=number)
        found = inside.found
        for i, name in enumerate(SHAPES):
            w, g, u = before[name].flatten(), grads[name].flatten(), updates[name].flatten()
            cosine = torch.nn.functional.cosine_similarity(u, -g, dim=0)
            expected = {
                "gradient_norm": g.norm(),
                "weight_norm": w.norm(),
                "update_norm": u.norm(),
                "update_ratio": u.norm() / w.norm(),
                "cosine": cosine,
                "gain": u.norm() / (optimizer.param_groups[i]["lr"] * g.norm()),
            }
            assert {k: found[k][i] for k in expected} == pytest.approx(
                {k: float(v) for k, v in expected.items()}, rel=1e-4
            )
            if u.numel() < SAMPLE:
                gains = (u / g).abs() / optimizer.param_groups[i]["lr"]
                for p in (5, 50, 95):
                    assert found[f"gain_p{p}"][i] == pytest.approx(
                        float(torch.quantile(gains, p / 100)), rel=1e-4
                    )


def test_a_coordinate_that_neither_moves_nor_has_a_gradient_does_not_count():
    optimizer, params = build("sgd", lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0)
    inside = Inside(1, optimizer, batch(), ALONE)
    p = params["wte"]
    with inside.gradients(0):
        (p[:3] * torch.arange(1.0, 19.0).view(3, 6)).sum().backward()
    with inside.update(1.0, applied=True):
        optimizer.step()
    assert inside.found["gain_p5"][1] == pytest.approx(1.0, rel=1e-3)
    assert math.isnan(inside.found["gain"][0])  # it had no gradient


@pytest.mark.parametrize("shape", [(768, 3072), (50304, 768), (1025,), (4096,)])
def test_the_sample_of_a_large_tensor_visits_all_its_columns(shape):
    numel, width = math.prod(shape), shape[-1]
    places = range(0, numel, _stride(numel))
    assert SAMPLE / 2 < len(places) <= SAMPLE
    if len(shape) == 2:
        seen = {place % width for place in places}
        assert len(seen) > 0.6 * min(width, SAMPLE)  # 63 % if they were drawn
        assert len({place // width for place in places}) > 0.6 * min(shape[0], SAMPLE)


def test_updates_that_are_not_due_or_not_applied_leave_nothing_and_no_hook():
    optimizer, params = build("adamw", lr=1e-2)
    for every, number in ((None, 0), (3, 4)):
        inside = Inside(every, optimizer, batch(), ALONE)
        step(inside, optimizer, params, number)
        assert inside.found is None
    inside = Inside(3, optimizer, batch(), ALONE)
    step(inside, optimizer, params, 3)
    assert inside.found is not None
    with inside.gradients(6):
        pass
    with inside.update(math.nan, applied=False):
        pass
    assert inside.found is None
    assert not any(p._backward_hooks for p in params.values())


WRAP = {"ema_nesterov": {}, "ema": {"decay": 0.9}}


@pytest.mark.filterwarnings("ignore:SophiaG has no estimate:UserWarning")
@pytest.mark.filterwarnings("ignore:MuonClip was given no:UserWarning")
@pytest.mark.parametrize(
    ("name", "wrap"),
    [*((name, None) for name in optim.OPTIMIZERS), ("adamw", WRAP), ("muon", WRAP)],
)
def test_an_update_has_the_same_bits_when_it_is_measured(name, wrap):
    ends = []
    for every in (None, 2):
        optimizer, params = build(name, wrap, **({"n_head": 2} if name == "adam_mini" else {}))
        inside = Inside(every, optimizer, batch(), ALONE)
        for number in range(5):
            step(inside, optimizer, params, number, seed=number)
        ends.append([p.detach() for p in params.values()])
        assert (inside.found is None) == (every is None), "the last update is measured"
    assert all(map(torch.equal, *ends))


# ------------------------------------------------------------------------------ clipped and masked


def test_cautious_rules_report_the_share_that_they_mask():
    for name in ("cautious_adamw", "cautious_lion"):
        optimizer, params = build(name, lr=1e-2, weight_decay=0.0)
        inside = Inside(1, optimizer, batch(), ALONE)
        for number in range(4):
            _, updates = step(inside, optimizer, params, number, seed=number)
            still = [float((u == 0).float().mean()) for u in updates.values()]
            assert inside.found["withheld"] == pytest.approx(still), name
        assert max(still) > 0.02


def test_sophia_reports_the_share_that_it_clips():
    optimizer, params = build("sophia_g", lr=1e-2, rho=300.0, weight_decay=0.0)
    inside = Inside(1, optimizer, batch(), ALONE)
    for p in params.values():
        p.grad = torch.rand(p.shape, generator=torch.Generator().manual_seed(9)) / 10
    optimizer.update_curvature(4)
    for number in range(3):
        step(inside, optimizer, params, number, seed=number)
        inside_bound = optimizer.diagnostics()["unclipped"]
        sizes = [p.numel() for p in params.values()]
        shares = zip(inside.found["withheld"], sizes, strict=True)
        clipped = sum(share * n for share, n in shares) / sum(sizes)
        assert clipped == pytest.approx(1 - inside_bound)
    assert 0.05 < clipped < 0.95


def test_adopt_reports_the_share_that_it_clips():
    optimizer, params = build("adopt", lr=1e-2, betas=(0.0, 0.99), weight_decay=0.0)
    inside = Inside(1, optimizer, batch(), ALONE)
    for number in range(3):
        _, updates = step(inside, optimizer, params, number, seed=number)
        largest = [float(u.abs().max()) for u in updates.values()]  # lr times c, where clipped
        at = [
            float(((u.abs() - m).abs() < 1e-6).float().mean())
            for u, m in zip(updates.values(), largest, strict=True)
        ]
        if number == 0:
            assert inside.found["withheld"] == [0.0] * 3
        else:
            assert inside.found["withheld"] == pytest.approx(at, abs=1e-6)


@pytest.mark.parametrize("shards", [False, True])
def test_ranks_together_know_the_share_of_every_parameter(shards):
    """Also where each rank has the state of its own parameters only."""
    parts = []
    for rank in (0, 1):
        optimizer, params = build("cautious_adamw", lr=1e-2)
        alone = Inside(1, optimizer, batch(), ALONE)
        for number in range(3):
            step(alone, optimizer, params, number, seed=number)
        expected = optimizer.withheld()
        place = SimpleNamespace(rank=rank, sum=lambda tensor: tensor)
        if shards:
            optimizer = Owned(optimizer, rank, 2)  # forgets the state of the others
            assert len(optimizer.withheld()) < len(SHAPES)
        inside = Inside(1, optimizer, batch(ranks=2), place)
        parts.append(inside._over_ranks([torch.tensor(2.0)]))
    (square, shares), (other, others) = parts
    assert square + other == 4 + 4
    assert (shares + others).tolist() == pytest.approx(
        [float(expected[p]) for p in params.values()]
    )
    assert min(shares + others) > 0


# -------------------------------------------------------------------------------------- noise scale


def known(ranks, micro_batches, updates=400):
    """Estimates from gradients with mean 1 and variance 9 per token, 10 coordinates, in a batch.

    Each token's gradient is drawn, a micro-batch has the mean of its own, and the loss of each is
    divided by their number, as in the loop. Ranks are played one after the other.
    """
    p = torch.nn.Parameter(torch.zeros(10))
    group = {"role": "vector", "params": [p], "names": ["p"]}
    optimizer = optim.build_optimizer("sgd", [group], lr=0.0, momentum=0.0, nesterov=False)
    shares = batch(micro=2, micro_batches=micro_batches, ranks=ranks)
    generator, pairs = torch.Generator().manual_seed(5), []
    for _ in range(updates):
        total, squares, found = torch.zeros(10), torch.zeros(1, dtype=torch.float64), None
        for rank in range(ranks):
            others = squares.clone()

            def add(tensor, others=others):
                return tensor.add_(others)

            inside = Inside(1, optimizer, shares, SimpleNamespace(rank=0, sum=add))
            p.grad = None
            with inside.gradients(0):
                for _ in range(micro_batches):
                    tokens = 1 + 3 * torch.randn(2 * 8, 10, generator=generator)
                    ((p * tokens.mean(0)).sum() / micro_batches).backward()
            total += p.grad / ranks
            squares += torch.stack(inside.norms).double().square().sum()
            if rank == ranks - 1:
                with inside.update(total.norm().item(), applied=True):
                    optimizer.step()
                found = inside.found["noise"]
        pairs.append((found["gradient_square"], found["trace"]))
    return torch.tensor(pairs, dtype=torch.float64)


@pytest.mark.parametrize(("ranks", "micro_batches"), [(1, 4), (2, 1), (2, 3)])
def test_noise_estimates_are_unbiased_for_gradients_of_known_covariance(ranks, micro_batches):
    pairs = known(ranks, micro_batches)
    mean, error = pairs.mean(0), pairs.std(0) / len(pairs) ** 0.5
    expected = torch.tensor([10.0, 90.0], dtype=torch.float64)  # |G|^2, trace of the covariance
    assert ((mean - expected).abs() < 4 * error).all(), (mean, error)
    assert (error < 0.1 * expected).all()
