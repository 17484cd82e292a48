"""The order of an epoch: a permutation that any part can be asked of."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data.permutation import permute


def order(n: int, seed: int = 1, epoch: int = 0) -> list[int]:
    return permute(np.arange(n, dtype=np.uint64), n, seed=seed, epoch=epoch).tolist()


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 5000), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**40))
def test_permutation_is_a_bijection(n, seed, epoch):
    assert sorted(order(n, seed, epoch)) == list(range(n))


@settings(deadline=None)
@given(n=st.integers(50, 2000), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
def test_other_epochs_and_seeds_have_another_order(n, seed, epoch):
    here = order(n, seed, epoch)
    assert here != order(n, seed, epoch + 1)
    assert here != order(n, seed + 1, epoch)
    assert here != list(range(n))


@given(n=st.integers(1, 10**12), data=st.data())
def test_any_part_of_a_huge_permutation_can_be_asked_for(n, data):
    places = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20, unique=True))
    images = permute(np.array(places, np.uint64), n, seed=3, epoch=7).tolist()
    assert len(set(images)) == len(places)
    assert all(0 <= image < n for image in images)
    alone = permute(np.array(places[:1], np.uint64), n, seed=3, epoch=7)
    assert alone.tolist() == images[:1]


def test_order_never_changes_by_accident():
    # Golden values: a change here changes every run. Mark it **numbers** in the changelog.
    assert order(10, seed=1, epoch=0) == GOLDEN_10
    huge = permute(np.arange(4, dtype=np.uint64), 10**11, seed=2**64 - 1, epoch=5)
    assert huge.tolist() == GOLDEN_HUGE


GOLDEN_10 = [5, 3, 8, 2, 6, 0, 7, 1, 9, 4]
GOLDEN_HUGE = [8700367550, 57583807863, 28667394418, 48766637795]


def plain_permute(x: int, n: int, seed: int, epoch: int) -> int:
    """The same network in unbounded integers, one number at a time."""
    bits, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & bits
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & bits
        return z ^ (z >> 31)

    key = mix((mix((seed + golden) & bits) ^ epoch) + golden & bits)
    columns = next(c for c in itertools.count(1) if c * c >= n)
    rows = math.ceil(n / columns)
    while True:
        left, right = divmod(x, columns)
        for i in range(1, 9, 2):
            left = (left + mix(right + mix(key + i * golden & bits) & bits)) % rows
            right = (right + mix(left + mix(key + (i + 1) * golden & bits) & bits)) % columns
        x = left * columns + right
        if x < n:
            return x


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 500), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**40))
def test_vectorised_permutation_equals_plain_integers(n, seed, epoch):
    assert order(n, seed, epoch) == [plain_permute(x, n, seed, epoch) for x in range(n)]


def test_order_looks_random():
    n, epochs = 97, 400
    orders = np.array([order(n, seed=5, epoch=epoch) for epoch in range(epochs)])
    # Where window 0 comes in the epoch: chi-squared over 97 places, 96 degrees of freedom.
    first = np.bincount(np.argmin(orders, axis=1), minlength=n)
    chi_squared = ((first - epochs / n) ** 2 / (epochs / n)).sum()
    assert 50 < chi_squared < 160  # 99.99 % of such tables lie within
    # Neighbours in the epoch are neighbours on disk as rarely as chance has it, 2 / n.
    neighbours = (np.abs(np.diff(orders, axis=1)) == 1).mean()
    assert abs(neighbours - 2 / n) < 0.005
    assert abs(np.corrcoef(orders[:-1].ravel(), orders[1:].ravel())[0, 1]) < 0.03
