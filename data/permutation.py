"""A pseudorandom permutation of 0..n-1 that needs no memory: any part can be computed alone.

A shuffled list of 100 million sequences would cost 800 MB and tens of seconds per epoch on every
rank, and its order would depend on the version of a library's generator. A Feistel network is a
formula instead: it is bijective for every round function, and is evaluated only where needed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

ROUNDS = 8
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: the increment of splitmix64


def mix(x: U64) -> U64:
    """The finaliser of splitmix64 on uint64: every input bit reaches every output bit.

    Source: Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014),
    with the constants of Stafford's variant 13. It wraps modulo 2**64 on purpose.
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys(seed: int, stream: int, count: int) -> U64:
    """`count` uint64 keys, unrelated to those of other (seed, stream); 0 <= both < 2**64."""
    key = mix(np.array([seed], np.uint64) + np.uint64(_GOLDEN))
    key = mix((key ^ np.array([stream], np.uint64)) + np.uint64(_GOLDEN))
    return mix(key + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN))


def permute(index: U64, n: int, *, seed: int, epoch: int) -> U64:
    """Where `index` (uint64, any shape, 0 <= index < n) goes in the permutation (seed, epoch).

    A number x is split into left < rows and right < columns with rows * columns >= n. Each round
    adds a hash of one half to the other, modulo its size. The few x that land on n or above are
    permuted again until they land below; the cycles of a permutation guarantee that they do.
    """
    columns = math.isqrt(n - 1) + 1
    rows = -(-n // columns)
    round_keys = keys(seed, epoch, ROUNDS)
    result = _feistel(index, rows, columns, round_keys)
    outside = result >= n
    while outside.any():
        result[outside] = _feistel(result[outside], rows, columns, round_keys)
        outside = result >= n
    return result


def _feistel(x: U64, rows: int, columns: int, round_keys: U64) -> U64:
    m, n = np.uint64(rows), np.uint64(columns)
    left, right = x // n, x % n
    for key in round_keys.reshape(-1, 2):
        left = (left + mix(right + key[0]) % m) % m
        right = (right + mix(left + key[1]) % n) % n
    return left * n + right
