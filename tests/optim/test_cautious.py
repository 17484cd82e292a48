"""Cautious AdamW and Lion against oracles, and against their bases where all signs agree."""

import pytest

from tests.optim import recorded


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [("cautious_adamw", recorded.ADAM), ("cautious_lion", recorded.SIGN)],
)
def test_equals_its_oracle(name, hyperparameters):
    recorded.assert_equals_oracle(name, 1e-2, **hyperparameters)


@pytest.mark.parametrize(("name", "base"), [("cautious_adamw", "adamw"), ("cautious_lion", "lion")])
def test_is_its_base_where_all_agree(name, base):
    """Gradients that never change sign agree with their averages.

    Cautious Lion still differs from Lion by the factor n / (n + 1).
    """
    grads = {key: [g.abs() * gs[0].sign() for g in gs] for key, gs in recorded.gradients().items()}
    cautious, plain = (
        recorded.moved(recorded.final(each, grads, weight_decay=0.0)) for each in (name, base)
    )
    if name == "cautious_lion":
        for change in plain.values():
            change *= change.numel() / (change.numel() + 1)
    assert recorded.close(cautious, plain)
