"""Signum against an oracle and a package."""

import pytest
import torch

from configs.validation import ConfigError
from optim import build_optimizer
from tests.optim import recorded


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, False), (0.9, True), (0.0, False)])
def test_equals_its_oracle(momentum, nesterov):
    values = {"momentum": momentum, "nesterov": nesterov, "weight_decay": 0.1}
    recorded.assert_equals_oracle("signum", 1e-2, **values)


def test_equals_pytorch_optimizer():
    values = {"momentum": 0.9, "weight_decay": 0.1}
    theirs = recorded.pytorch_optimizer("SignSGD", **values)
    recorded.assert_equals_package("signum", theirs, **values)


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ConfigError, match="needs a momentum above 0") as caught:
        build_optimizer("signum", [torch.zeros(2)], momentum=0.0, nesterov=True)
    assert "\n" not in str(caught.value)
