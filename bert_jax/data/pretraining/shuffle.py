"""A random permutation without a table: the value at each index is computed, for any number of values.

A Feistel network permutes all numbers of a fixed number of bits; a result beyond `count` goes through it again. The
numbers 0 to 5, for example, need three bits: the network permutes 0 to 7, and where it gives 6 or 7 it is applied to
that until it gives less than 6. So a corpus of any size is shuffled in constant memory, and resuming at a row needs no
more than its number.

grain's `MapDataset.shuffle` has a similar network, but with 32-bit indices (a large corpus has more pairs over all
passes) and one Python call per index, where this takes arrays.

References: Luby, Rackoff, How to Construct Pseudorandom Permutations, 1988; Black, Rogaway, Ciphers with Arbitrary
Finite Domains, 2002, section 4 (cycle walking).
"""

import numpy as np

ROUNDS = 8


def shuffled(indices: np.ndarray, count: int, seeds: np.random.SeedSequence) -> np.ndarray:
    """Returns the values, int64 [B], at `indices`, int [B], of a permutation of 0 to count - 1 that `seeds` decide."""
    bits = max(2, (count - 1).bit_length())
    keys = seeds.generate_state(ROUNDS, np.uint64)
    values = _permute(indices.astype(np.uint64), bits, keys)
    while (beyond := values >= count).any():
        values[beyond] = _permute(values[beyond], bits, keys)
    return values.astype(np.int64)


def _permute(numbers: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """Permutes the numbers of `bits` bits: in each round one half is XORed with a function of the other."""
    left_bits = bits - bits // 2
    right_bits = bits // 2
    left = numbers >> np.uint64(right_bits)
    right = numbers & np.uint64((1 << right_bits) - 1)
    for key in keys:
        # The halves swap; if `bits` is odd, so do their widths.
        left, right = right, left ^ (_mix(right + key) & np.uint64((1 << left_bits) - 1))
        left_bits, right_bits = right_bits, left_bits
    return left << np.uint64(right_bits) | right


def _mix(x: np.ndarray) -> np.ndarray:
    x = x * np.uint64(0x9E3779B97F4A7C15)
    return x ^ (x >> np.uint64(32))
