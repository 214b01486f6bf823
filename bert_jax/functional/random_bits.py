"""A cheap random-number generator for dropout masks, which are recomputed instead of stored.

JAX's own generator (threefry) runs twenty rounds per element and writes the bits to memory, and the masks are kept for
the backward pass. Here the bits of an element are a hash of its index and of the key: one keyed round of ten
operations, which XLA fuses into the code that reads them. Two elements that need 16 bits each share one hash. Keys are
still split and folded by threefry; only the last step, from a key to an array of bits, is new. The bits do not depend
on the number of devices, and under `jax.vmap` each key gives the same bits as alone.

An array is a stack of matrices, its last two axes. Each matrix has a key of its own, made from the array's key and the
matrix's index; within a matrix an element is a column and a row. So nothing repeats in an array of more than 2^32
elements; only a single matrix of more than 2^32 elements repeats its bits.

Suitable for dropout, not for cryptography.

References: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011 (bits as a function of key and counter).
Wellons, Prospecting for Hash Functions, 2018 (the multipliers and shifts of `hash_index`).
"""

import math
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import define_prng_impl, threefry_prng_impl

PAIRED = 8  # rows t and t + 8 of 16 rows share a hash: neighbours in the registers of GPUs, and in the tiles of TPUs


def hash_index(index: Array, word: Array, other_word: Array) -> Array:
    """Returns a hash, uint32, of uint32 indices for a key of two words.

    For each key it is a bijection in which every bit of the index affects every bit of the hash.
    """
    x = index + word
    x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD) + other_word
    x = (x ^ (x >> 15)) * jnp.uint32(0xD35A2D97)
    return x ^ (x >> 15)


def matrix_key(key_words: Array, matrix: Array) -> tuple[Array, Array]:
    """Returns the two words that key the matrices with these indices, uint32 of any shape; `key_words` is uint32 [2].

    Both words differ between all matrices, because a product with an odd number is a bijection. The first multiplier is
    2^32 divided by the golden ratio. It spreads the matrices' ranges of indices evenly: they overlap only after
    thousands of matrices, and then the other word differs. The key's second word is hashed, because keys such as those
    of the seeds 0 and 1 differ in one bit of it only.
    """
    second = hash_index(key_words[1], jnp.uint32(0), jnp.uint32(0))
    return key_words[0] + second + matrix * jnp.uint32(0x9E3779B9), second + matrix * jnp.uint32(0xC2B2AE35)


def row_bits(key: Array, bit_width: int, shape: tuple[int, ...], first_row: Array | int) -> Array:
    """Returns `jax.random.bits` of a `shape` [B, ...] whose rows are those from `first_row` of a larger array.

    Only keys of the kind `hashed` can skip rows: with others, row 0 is always the first.
    """
    if not skips_rows(key):
        return jax.random.bits(key, shape, f"uint{bit_width}")
    return _hashed_bits(jax.random.key_data(key), bit_width, shape, first_row)


def skips_rows(key: Any) -> bool:
    """Returns whether `row_bits` can skip rows with this key, or an array of keys, or its shape."""
    return key.dtype == _hashed_dtype()


@cache
def _hashed_dtype() -> Any:
    return jax.eval_shape(partial(jax.random.key, impl=HASHED), 0).dtype


def _hashed_bits(key: Array, bit_width: int, shape: tuple[int, ...], first_row: Array | int = 0) -> Array:
    """Returns random unsigned integers of `bit_width` bits in an array of `shape`; `key` is two uint32 words.

    Of 16 and fewer bits, rows t and t + 8 of a matrix use the upper and the lower half of one hash:

        row    0 .. 7   8 .. 15   16 .. 23   24 .. 31
        pair   0 .. 7   0 .. 7     8 .. 15    8 .. 15
        half   upper    lower     upper      lower

    Args:
        first_row: the array is a slice of a larger one, from this index of the first axis.
    """
    wide = (1,) * (2 - len(shape)) + tuple(shape)  # fewer than two axes are one row
    *stack, _, columns = wide
    # Each index varies along its own axes only: what does not depend on the key is computed outside of a loop over
    # layers, and is stored, so it must be small. The index of a matrix is in row-major order: with the stack (2, 3)
    # the strides are (3, 1), and the indices [[0, 1, 2], [3, 4, 5]].
    places = [_iota(wide, axis) for axis in range(len(wide))]
    if shape:
        places[len(wide) - len(shape)] += jnp.uint32(first_row)
    matrix = jnp.zeros([1] * len(wide), jnp.uint32)
    for axis in range(len(stack)):
        matrix = matrix + places[axis] * jnp.uint32(math.prod(stack[axis + 1 :]) % 2**32)
    row, column = places[-2:]
    words = matrix_key(key, matrix)
    if bit_width > 16:
        bits = hash_index(row * jnp.uint32(columns) + column, *words).reshape(shape)
        if bit_width == 32:
            return bits
        return bits.astype(jnp.uint64) << 32 | hash_index(bits, *key).astype(jnp.uint64)
    pair = row // (2 * PAIRED) * PAIRED + row % PAIRED
    is_upper = (row // PAIRED + 1) % 2
    half = hash_index(pair * jnp.uint32(columns) + column, *words) >> (16 * is_upper)
    return (half.astype(jnp.uint16) >> (16 - bit_width)).astype(f"uint{bit_width}").reshape(shape)


def _iota(shape: tuple[int, ...], axis: int) -> Array:
    """Returns the index along an axis of `shape`, uint32; the other axes have length 1."""
    return jax.lax.broadcasted_iota(jnp.uint32, [size if i == axis else 1 for i, size in enumerate(shape)], axis)


HASHED: Any = define_prng_impl(
    key_shape=threefry_prng_impl.key_shape,
    seed=threefry_prng_impl.seed,
    split=threefry_prng_impl.split,
    fold_in=threefry_prng_impl.fold_in,
    random_bits=_hashed_bits,
    name="hashed",
    tag="hash",
)
