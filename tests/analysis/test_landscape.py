"""Lines and planes on losses that are known in closed form."""

import numpy as np
import pytest
import torch

from analysis.landscape import along_line, barrier, on_plane, plane_through, random_plane
from analysis.loss import Loss
from configs import ConfigError, Model
from train_gpt2 import GPT

A, B, C = (torch.tensor(x) for x in ([1.0, 0.0, 2.0], [4.0, 4.0, 2.0], [1.0, 3.0, 5.0]))


def quadratic():
    w = torch.nn.Parameter(A.clone())
    return Loss([w], [lambda: (w**2).sum()])


def test_losses_on_a_line_are_those_of_the_points_between():
    loss, places = quadratic(), np.linspace(0, 1, 5)
    expected = [float((((1 - t) * A + t * B) ** 2).sum()) for t in places]
    assert along_line(loss, (A, B), places) == pytest.approx(expected, rel=1e-6)
    assert torch.equal(loss.weights, A)


def test_a_loss_that_is_not_finite_is_one_line_and_the_weights_stay():
    w = torch.nn.Parameter(A.clone())
    loss = Loss([w], [lambda: torch.where(w[0] > 3, torch.nan, w[0])])
    with pytest.raises(ConfigError, match=r"not finite at 2 of 5 places"):
        along_line(loss, (A, B), np.linspace(0, 1, 5))
    assert torch.equal(loss.weights, A)


def test_a_barrier_is_the_height_above_the_chord():
    w = torch.nn.Parameter(torch.zeros(1))
    wells = Loss([w], [lambda: ((w**2 - 1) ** 2 + 0.5 * w).sum()])  # tilted: -0.5 and 0.5
    places = np.linspace(0, 1, 11)
    losses = along_line(wells, (torch.tensor([-1.0]), torch.tensor([1.0])), places)
    assert barrier(places, losses) == pytest.approx(1, rel=1e-6)
    assert barrier(places, places**2) == 0  # below the chord everywhere but at its ends


def test_a_plane_holds_its_three_weights_and_keeps_distances():
    plane = plane_through(A, B, C)
    for weights, (x, y) in zip((A, B, C), plane.marks, strict=True):
        torch.testing.assert_close(plane.origin + x * plane.across + y * plane.up, weights)
        assert x**2 + y**2 == pytest.approx(float(((weights - A) ** 2).sum()), rel=1e-5)
    assert float(plane.across @ plane.up) == pytest.approx(0, abs=1e-6)
    xs, ys = np.array([0.0, 1.0]), np.array([-1.0, 0.0, 2.0])
    losses = on_plane(quadratic(), plane, xs, ys)
    assert losses.shape == (3, 2)
    point = A + 1.0 * plane.across + 2.0 * plane.up
    assert losses[2, 1] == pytest.approx(float((point**2).sum()), rel=1e-6)


@pytest.mark.parametrize("third", [A, B, 2 * B - A, A + 0.3 * (B - A)])
def test_three_weights_on_a_line_make_no_plane(third):
    with pytest.raises(ConfigError, match="lie on one line"):
        plane_through(A, B, third)


def test_random_directions_have_the_norms_of_the_models_rows():
    shape = Model(vocab_size=9, block_size=4, n_layer=1, n_head=1, n_embd=8)
    model = GPT.initialised(shape, 3)
    loss = Loss(model.parameters(), [])
    plane = random_plane(model, loss.weights, seed=1)
    loss.put(plane.across)
    drawn = GPT.initialised(shape, 3)
    for p, d in zip(drawn.parameters(), model.parameters(), strict=True):
        if p.ndim < 2:
            assert not d.any()
        else:
            torch.testing.assert_close(d.norm(dim=1), p.norm(dim=1))
    assert not torch.allclose(plane.across, plane.up)
    assert torch.equal(random_plane(drawn, loss.weights, seed=1).up, plane.up)
