"""The best rate of a sweep."""

import math

import pytest

from bench.width import best


def test_best_rate_is_where_the_parabola_is_lowest():
    curve = {3.0**k: (k - 0.3) ** 2 for k in range(-2, 3)}
    assert best(curve) == pytest.approx(3.0**0.3)


def test_best_rate_beside_a_diverged_run_is_the_rate_itself():
    assert best({0.1: 3.0, 0.3: 2.0, 0.9: math.inf}) == 0.3
    assert best({0.1: 2.0, 0.3: 3.0, 0.9: 4.0}) == 0.1
