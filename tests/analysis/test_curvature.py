"""Hessian products, eigenvalues and traces against matrices that are known whole."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from analysis.curvature import largest_eigenvalues, trace
from analysis.loss import Loss
from configs import ConfigError, Model
from train_gpt2 import GPT

SHAPE = Model(vocab_size=7, block_size=5, n_layer=1, n_head=2, n_embd=4)


def quadratic(matrix):
    """Half of w^T matrix w, in two parts."""
    w = torch.nn.Parameter(torch.linspace(-1, 1, len(matrix)))
    return Loss([w], [lambda: 0.3 * w @ matrix @ w, lambda: 0.2 * w @ matrix @ w])


def with_spectrum(values, seed=1):
    """A full symmetric matrix with these eigenvalues."""
    drawn = torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed))
    basis = torch.linalg.qr(drawn).Q
    return basis @ torch.diag(torch.tensor(values)) @ basis.T


def small_gpt():
    """A GPT far from its start, and three sequences."""
    generator = torch.Generator().manual_seed(2)
    model = GPT.initialised(SHAPE, 1)
    for name, p in model.named_parameters():
        p.data += 0.4 * torch.randn(p.shape, generator=generator)
        if name == "wte.weight":
            p.data[SHAPE.vocab_size :] = 0
    return model, torch.randint(SHAPE.vocab_size, (3, 6), generator=generator)


def whole_hessian(model, batch):
    """By differences of first derivatives in float64.

    torch.func.hessian takes forward derivatives of backward passes, which torch 2.13 gets wrong for
    the weights of LayerNorm: its matrix is not even symmetric.
    """
    exact = copy.deepcopy(model).double()
    params, columns = list(exact.parameters()), []

    def gradient():
        found = torch.autograd.grad(exact(batch[:, :-1], batch[:, 1:]), params)
        return torch.cat([g.reshape(-1) for g in found])

    here = gradient()
    for p in params:
        read = SHAPE.vocab_size * SHAPE.n_embd if p is exact.wte.weight else p.numel()
        for i in range(read):
            own = p.data.view(-1)[i].item()
            p.data.view(-1)[i] = own + 1e-6
            columns.append((gradient() - here) / 1e-6)
            p.data.view(-1)[i] = own
        columns += [torch.zeros_like(columns[0])] * (p.numel() - read)  # rows that pad
    return torch.stack(columns).numpy()


@pytest.fixture(scope="module")
def gpt():
    model, batch = small_gpt()
    return Loss.of(model, batch, rows=2), whole_hessian(model, batch)


def test_a_quadratic_has_its_spectrum():
    spectrum = [9.0, 5.0, 2.0, 1.0, 0.5, 0.1, 0.0, 0.0, 0.0, 0.0, -1.0, -20.0]
    loss = quadratic(with_spectrum(spectrum))
    assert largest_eigenvalues(loss, 3) == pytest.approx([9, 5, 2], rel=1e-3)


def test_the_largest_eigenvalues_of_a_gpt_are_those_of_its_whole_hessian(gpt):
    loss, whole = gpt
    assert largest_eigenvalues(loss, 3) == pytest.approx(
        np.linalg.eigvalsh(whole)[::-1][:3], rel=2e-3
    )


def test_a_product_with_a_gpts_hessian_is_that_of_the_whole_one(gpt):
    loss, whole = gpt
    direction = torch.randn(len(whole), generator=torch.Generator().manual_seed(3))
    expected = whole @ direction.double().numpy()
    assert loss.product(direction).numpy() == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_preconditioned_eigenvalues_are_those_of_the_scaled_hessian(gpt):
    loss, whole = gpt
    factors = torch.rand(len(whole), generator=torch.Generator().manual_seed(4)) * 9 + 1
    expected = np.linalg.eigvals(factors.double().numpy()[:, None] * whole).real.max()
    (found,) = largest_eigenvalues(loss, 1, factors)
    assert found == pytest.approx(expected, rel=2e-3)


def test_a_trace_is_within_its_standard_error_and_the_error_is_that_of_random_signs():
    matrix = with_spectrum([3.0, 1.0, 1.0, 0.5, -0.5, -2.0])
    estimate, error = trace(quadratic(matrix), draws=400)
    off = matrix - torch.diag(matrix.diag())
    assert error == pytest.approx(float((2 * (off**2).sum() / 400) ** 0.5), rel=0.15)
    assert abs(estimate - 3.0) < 4 * error
    exact, none = trace(quadratic(torch.diag(torch.tensor([2.0, -5.0, 1.0]))), draws=3)
    assert (exact, none) == pytest.approx((-2, 0), abs=1e-5)


def test_the_trace_of_a_gpt_is_that_of_its_whole_hessian(gpt):
    loss, whole = gpt
    estimate, error = trace(loss, draws=50)
    assert abs(estimate - np.trace(whole)) < 4 * error
    assert error < 0.3 * abs(np.trace(whole))


def test_pieces_of_a_batch_weigh_as_much_as_their_sequences():
    model, batch = small_gpt()
    whole, pieces = Loss.of(model, batch, rows=3), Loss.of(model, batch, rows=2)
    assert pieces.value() == pytest.approx(whole.value(), rel=1e-6)
    torch.testing.assert_close(pieces.gradient()[1], whole.gradient()[1])
    direction = torch.ones_like(whole.weights)
    torch.testing.assert_close(pieces.product(direction), whole.product(direction))


def test_weights_that_are_put_in_place_are_a_copy():
    loss = quadratic(torch.eye(3))
    new = torch.tensor([1.0, 2.0, 3.0])
    loss.put(new)
    new += 1
    assert loss.weights.tolist() == [1, 2, 3]
    assert loss.value() == pytest.approx(7)


def test_flash_attention_has_a_hessian_too_and_a_compiled_model_is_refused_in_one_line():
    model, batch = small_gpt()
    expected = Loss.of(model, batch, 3)
    direction = torch.randn(expected.weights.shape, generator=torch.Generator().manual_seed(5))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # which has no second derivative
        found = Loss.of(model, batch, 3).product(direction)
    assert torch.equal(found, expected.product(direction))
    with pytest.raises(ConfigError, match="has no second derivative; give the GPT itself") as it:
        Loss.of(torch.compile(model), batch, 3)
    assert "\n" not in str(it.value)
