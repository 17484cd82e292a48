"""Gradients of one update: micro-batches, labels, ranks, devices; the model keeps count."""

from types import SimpleNamespace

import pytest
import torch

from configs import Model
from train_gpt2 import GPT, backward, evaluate


class Weighted(torch.nn.Module):
    """Loss: its weight times the mean of the targets. Keeps what it was called with."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))
        self.calls, self.synced = [], []

    def forward(self, tokens, targets):
        self.calls.append((tokens.tolist(), targets.tolist()))
        self.synced.append(getattr(self, "require_backward_grad_sync", "never set"))
        return self.weight * targets.double().mean()


def arguments(model, *, ranks=1, micro=2, micro_batches=3, device="cpu"):
    """(run, state) with all that backward looks at."""
    process = SimpleNamespace(device=torch.device(device), world_size=ranks)
    batch = SimpleNamespace(micro=micro, micro_batches=micro_batches)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=False)
    return (
        SimpleNamespace(process=process, batch=batch),
        SimpleNamespace(ddp_model=model, autocast=autocast),
    )


ROWS = torch.arange(6 * 4).reshape(6, 4)


def test_micro_batches_add_up_to_the_mean_of_the_whole_batch():
    model = Weighted()
    total = backward(*arguments(model), ROWS)
    mean = ROWS[:, 1:].double().mean().item()
    assert total.item() == pytest.approx(2 * mean)
    assert not total.requires_grad
    assert model.weight.grad.item() == pytest.approx(mean)
    assert model.calls == [
        (ROWS[i : i + 2, :-1].tolist(), ROWS[i : i + 2, 1:].tolist()) for i in (0, 2, 4)
    ]


def test_each_row_draws_with_its_own_uniform_numbers():
    model, uniform = Weighted(), torch.rand(6, 3)
    backward(*arguments(model), ROWS, uniform)
    assert [targets for _, targets in model.calls] == [
        uniform[i : i + 2].tolist() for i in (0, 2, 4)
    ]


@pytest.mark.parametrize(("ranks", "synced"), [(1, ["never set"] * 3), (2, [False, False, True])])
def test_ranks_exchange_gradients_on_the_last_micro_batch_only(ranks, synced):
    model = Weighted()
    backward(*arguments(model, ranks=ranks), ROWS)
    assert model.synced == synced


def test_everything_is_computed_on_the_device_of_the_process():
    """The meta device stands for a GPU: a tensor left on the CPU cannot be added to its own."""
    with torch.device("meta"):
        model = GPT(Model(vocab_size=30, block_size=3, n_layer=1, n_head=1, n_embd=8))
    run, state = arguments(model, device="meta")
    assert backward(run, state, ROWS).device.type == "meta"

    def total(values):
        assert (values.device.type, values.shape) == ("meta", (12,))
        return torch.arange(12.0)

    run.process.sum = total
    parts = [(slice(0, 6), ROWS), (slice(6, 12), ROWS)]
    text = SimpleNamespace(sequences=12, batches=lambda rows: parts)
    assert evaluate(model, text, 6, run.process).tolist() == [*range(12)]
