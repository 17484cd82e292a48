"""The parameters, groups and gradients of the tests of optimizers."""

from tests.optim.conftest import groups, parameters, replay

__all__ = ["groups", "parameters", "replay"]
