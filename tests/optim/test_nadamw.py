"""NAdamW against an oracle written from the paper."""

from tests.optim.recorded import ADAM, assert_equals_oracle


def test_equals_its_oracle():
    assert_equals_oracle("nadamw", 1e-2, **ADAM)
