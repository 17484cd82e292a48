"""LAMB against an oracle and a package, and the length of its step."""

import pytest

from optim import build_optimizer
from tests.optim import recorded
from tests.optim.recorded import ADAM

LIKE_THE_SEED = {"bias_correction": False, "ratio_eps": 1e-6, "adapt_vectors": True}


@pytest.mark.parametrize(
    "hyperparameters",
    [
        ADAM,
        {**ADAM, "eps": 1e-6, "max_weight_norm": 1.0, **LIKE_THE_SEED},
        {**ADAM, "weight_decay": 0.0},
    ],
)
def test_equals_its_oracle(hyperparameters):
    recorded.assert_equals_oracle("lamb", 1e-2, **hyperparameters)


def test_as_in_the_seed_it_equals_pytorch_optimizer():
    """Without bias correction, the package is the LAMB of the preset lamb_seed."""
    values = {"betas": (0.9, 0.95), "eps": 1e-6, "weight_decay": 0.1}
    options = {"weight_decouple": False, "adam_debias": True}
    theirs = recorded.pytorch_optimizer("Lamb", **values, **options)
    mine = {**values, "max_weight_norm": 10.0, **LIKE_THE_SEED}
    recorded.assert_equals_package("lamb", theirs, **mine)


def test_it_moves_each_matrix_by_lr_times_its_norm():
    grads = {key: gs[:1] for key, gs in recorded.gradients().items()}
    named = recorded.start()
    optimizer = build_optimizer("lamb", list(named.values()), lr=1e-2, weight_decay=0.0)
    for key, change in recorded.moved(recorded.take(optimizer, named, grads, [1e-2])).items():
        if change.ndim == 2:
            norm = recorded.start()[key].norm().item()
            assert change.norm() == pytest.approx(1e-2 * norm, rel=1e-9)
