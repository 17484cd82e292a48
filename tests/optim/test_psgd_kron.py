"""PSGD-Kron against a slow oracle, and what its factors and its counter of fits promise."""

import math

import pytest
import pytorch_optimizer
import torch

from configs import ConfigError
from optim import build_optimizer
from optim.psgd_kron import fitting_steps, probe
from tests.optim import oracles_matrix, oracles_whitening

SHAPES = {
    "tall": (12, 8),
    "wide": (8, 12),
    "square": (8, 8),
    "long": (20, 5),  # its long side has a diagonal factor
    "row": (1, 6),
    "bias": (8,),
    "one": (1,),
}
BOTH = {"lr": 0.01, "beta1": 0.8, "weight_decay": 0.1}


@pytest.mark.parametrize("precond_lr", [0.1, 1.0])
@pytest.mark.parametrize("flat_start", [0, 100])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_equals_the_oracle(dtype, tolerance, precond_lr, flat_start):
    """With factors fitted always, and at half of the steps.

    Against kron_torch 0.3.3 with the same V, in float64: 4e-15.
    """
    rare = {"flat_start": flat_start, "min_probability": 0.5, "probability_decay": 10.0}
    ours = oracles_matrix.named_parameters(dtype, SHAPES)
    optimizer = build_optimizer(
        "psgd_kron",
        ours.values(),
        precond_lr=precond_lr,
        initial_scale=3.0,
        max_triangular=15,
        seed=5,
        **rare,
        **BOTH,
    )
    oracles_matrix.replay(optimizer, ours)
    theirs = oracles_matrix.oracle(
        lambda p: oracles_whitening.psgd_kron(
            p,
            precond_lr=precond_lr,
            scale=3.0,
            longest=15,
            probe=lambda shape, t: probe(torch.Size(shape), 5, t, dtype, torch.device("cpu")),
            fits=lambda t: flat_start == 100 or t % 2 == 1,
            **BOTH,
        ),
        oracles_matrix.named_parameters(dtype, SHAPES),
    )
    assert oracles_matrix.distance(ours, theirs) < tolerance


def test_equals_the_package(monkeypatch):
    """pytorch_optimizer's, which does not damp, and adds 1e-6 where the length is limited."""
    monkeypatch.setattr("optim.psgd_kron._DAMPING", 0.0)
    ours, theirs = (oracles_matrix.named_parameters(shapes=SHAPES) for _ in range(2))
    both = {"lr": 0.01, "weight_decay": 0.1}
    vectors = [{"params": [p], "weight_decay": 0.0} for p in ours.values() if p.ndim == 1]
    groups = [{"params": [p for p in ours.values() if p.ndim == 2]}, *vectors]
    optimizer = build_optimizer("psgd_kron", groups, max_triangular=15, **both)
    oracles_matrix.replay(optimizer, ours)
    both |= {"precondition_dtype": torch.float64, "balance_prob": 1.0}
    package = pytorch_optimizer.Kron(list(theirs.values()), max_size_triangular=15, **both)
    for step in range(12):

        def draw(like, dtype, step=step):
            shape = like.reshape(len(like), -1).shape  # a vector is a column
            return probe(shape, 0, step + 1, dtype, like.device).view_as(like)

        monkeypatch.setattr(torch, "randn_like", draw)
        for name, p in theirs.items():
            p.grad = oracles_matrix.gradient(step, name, p)
        package.step()
    assert oracles_matrix.distance(ours, {k: p.detach() for k, p in theirs.items()}) < 1e-5


@pytest.mark.parametrize("name", ["psgd_kron", "scion"])
def test_only_hidden_matrices_can_have_a_split_of_their_own(name):
    group = {"params": [torch.nn.Parameter(torch.ones(6, 2))], "role": "embedding"}
    with pytest.raises(ConfigError, match="cannot have its own split_qkv for this role"):
        build_optimizer(name, [group], roles={"embedding": {"split_qkv": False}})


def fitted(gradients, **hyperparameters):
    """The state of a parameter of zeros after a step with each of the gradients."""
    p = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer = build_optimizer("psgd_kron", [p], **hyperparameters)
    for g in gradients:
        p.grad = g
        optimizer.step()
    return optimizer.state[p], p


def test_it_whitens():
    """Gradients with row and column scales from 0.1 to 10 come out with equal ones."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.logspace(-1, 1, 6, dtype=torch.float64)[:, None]
    columns = torch.logspace(0.5, -0.5, 4, dtype=torch.float64)
    noise = torch.randn(2000, 6, 4, generator=generator, dtype=torch.float64)
    gradients = rows * noise * columns
    state, _ = fitted(list(gradients[:1500]), lr=0.0, beta1=0.0, flat_start=1500)
    left, right = state["left"], state["right"]
    white = left.T @ left @ gradients[1500:] @ right.T @ right
    sizes = white.square().mean(0).sqrt()
    assert sizes.max() / sizes.min() < 2
    assert 0.7 < white.square().mean().sqrt() < 1.4


def test_a_matrix_without_gradients_keeps_its_factors():
    """In the published code they grow by up to a tenth at each fit, until they overflow."""
    zeros = 500 * [torch.zeros(4, 3)]
    state, p = fitted(zeros, initial_scale=1.0)
    assert torch.equal(state["left"], torch.eye(4))
    assert torch.equal(state["right"], torch.eye(3))
    assert torch.equal(p, torch.zeros(4, 3))


def test_balancing_the_factors_moves_no_update():
    generator = torch.Generator().manual_seed(2)
    gradients = torch.randn(6, 5, 4, generator=generator, dtype=torch.float64)
    moved = []
    for factor in (1.0, 1e6):
        p = torch.nn.Parameter(torch.zeros(5, 4, dtype=torch.float64))
        optimizer = build_optimizer("psgd_kron", [p])
        for step, g in enumerate(gradients):
            if step == 1:
                optimizer.state[p]["left"].mul_(factor)
                optimizer.state[p]["right"].div_(factor)
            p.grad = g
            optimizer.step()
        moved.append(p.detach())
        sizes = [optimizer.state[p][side].abs().max() for side in ("left", "right")]
        assert 0.1 < sizes[0] / sizes[1] < 10
    assert torch.allclose(*moved, rtol=1e-10, atol=0)


def test_an_update_has_a_limited_root_mean_square():
    """The first factors are the identity: a large gradient would be the update."""
    _, p = fitted([torch.full((4, 3), 1e4)], lr=1.0)
    assert math.isclose(p.detach().square().mean().sqrt(), 1.1, rel_tol=1e-5)


def test_fits_come_when_the_inverse_of_their_probability_has_passed():
    """Against a counter as kron_torch keeps it, from step to step."""
    expected, counter = set(), 0
    for step in range(1, 8001):
        counter += 1
        probability = min(1.0, max(0.03, math.exp(-0.001 * (step - 1 - 500))))
        if counter >= 1 / probability:
            expected.add(step)
            counter = 0
    assert fitting_steps(8000, 500, 0.001, 0.03) == expected
    assert {step for step in expected if step <= 501} == set(range(1, 502))
    last = sorted(expected)[-3:]
    assert last[2] - last[1] == last[1] - last[0] == 34
    longer = fitting_steps(16000, 500, 0.001, 0.03)
    assert {step for step in longer if step <= 8000} == expected, "does not depend on the horizon"


def test_probes_differ_by_step_shape_and_seed():
    def draw(shape, seed, step):
        return probe(torch.Size(shape), seed, step, torch.float32, torch.device("cpu"))

    base = draw((4, 3), 0, 1)
    assert torch.equal(base, draw((4, 3), 0, 1))
    assert not torch.equal(base, draw((4, 3), 0, 2))
    assert not torch.equal(base, draw((4, 3), 1, 1))
    assert not torch.equal(base, draw((3, 4), 0, 1).T)


def test_every_parameter_takes_part():
    """Embeddings and vectors, too: AdamW has no part in it."""
    shapes = {"wte": (12, 8), "c_fc": (12, 8), "bias": (8,)}
    named = oracles_matrix.named_parameters(torch.float32, shapes)
    roles = {"wte": "embedding", "c_fc": "hidden", "bias": "vector"}
    groups = [{"params": [named[key]], "role": role} for key, role in roles.items()]
    optimizer = build_optimizer("psgd_kron", groups)
    oracles_matrix.replay(optimizer, named, steps=2)
    for p in named.values():
        assert set(optimizer.state[p]) == {"step", "momentum_buffer", "left", "right"}
