"""A random order without a table: which of `count` things comes at a place is computed, however many there are.

A Feistel network permutes numbers of as many bits as `count` takes; a result beyond `count` goes through it again.

References: Luby, Rackoff, How to Construct Pseudorandom Permutations, 1988; Black, Rogaway, Ciphers with Arbitrary
Finite Domains, 2002, section 4 (cycle walking).
"""

import numpy as np

ROUNDS = 8


def shuffled(places: np.ndarray, count: int, seeds: np.random.SeedSequence) -> np.ndarray:
    """Returns which things, int64 [B], of 0 to count - 1, are at `places`, int [B], in the order that `seeds` decide.

    All places together have every thing once.
    """
    bits = max(2, (count - 1).bit_length())
    keys = seeds.generate_state(ROUNDS, np.uint64)
    things = _permute(places.astype(np.uint64), bits, keys)
    while (beyond := things >= count).any():
        things[beyond] = _permute(things[beyond], bits, keys)
    return things.astype(np.int64)


def _permute(numbers: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """Permutes the numbers of so many bits: each half in turn is masked with a function of the other."""
    one, two = bits - bits // 2, bits // 2
    left, right = numbers >> np.uint64(two), numbers & np.uint64((1 << two) - 1)
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & np.uint64((1 << one) - 1))
        one, two = two, one
    return left << np.uint64(two) | right


def _mix(x: np.ndarray) -> np.ndarray:
    x = x * np.uint64(0x9E3779B97F4A7C15)
    return x ^ (x >> np.uint64(32))
