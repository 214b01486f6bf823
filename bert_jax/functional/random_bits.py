"""A cheap random-number generator for dropout masks, which are recomputed instead of stored.

JAX's own generator (threefry) runs twenty rounds per element and writes the bits to memory, and the masks are kept for
the backward pass. Here the bits of an element are a hash of its index and of the key: a dozen operations, which XLA
fuses into the code that reads them. Keys are still split and folded by threefry; only the last step, from a key to an
array of bits, is new. The bits do not depend on the number of devices, and under `jax.vmap` each key gives the same
bits as alone.

Suitable for dropout, not for cryptography. In an array of more than 2^32 elements the bits repeat.

References: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011 (bits as a function of key and counter).
Wellons, Prospecting for Hash Functions, 2018 (the hash, `hash_uint32`).
"""

import math
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import define_prng_impl, threefry_prng_impl


def hash_uint32(x: Array) -> Array:
    """Returns a hash of uint32 values; a bijection in which every input bit affects every output bit."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD)
    x = (x ^ (x >> 15)) * jnp.uint32(0xD35A2D97)
    return x ^ (x >> 15)


def hash_index(index: Array, word: Array, other_word: Array) -> Array:
    """Returns the random bits, uint32, of the elements with these indices, uint32, for a key of two words."""
    return hash_uint32(hash_uint32(index + word) + other_word)


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
    """Returns random unsigned integers of `bit_width` bits in an array of `shape`; `key` is two uint32 words."""
    # The index of each element in row-major order, modulo 2^32. For shape (2, 3) the strides are (3, 1), and the
    # indices [[0, 1, 2], [3, 4, 5]]. A sum of iotas is elementwise, so it fuses and shards freely.
    strides = [math.prod(shape[axis + 1 :]) % 2**32 for axis in range(len(shape))]
    index = jnp.full(shape, jnp.uint32(first_row) * jnp.uint32(strides[0] if strides else 0))
    for axis, stride in enumerate(strides):
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    bits = hash_index(index, key[0], key[1])
    if bit_width == 64:
        return bits.astype(jnp.uint64) << 32 | hash_uint32(bits + key[0]).astype(jnp.uint64)
    return (bits >> (32 - bit_width)).astype(f"uint{bit_width}")


HASHED: Any = define_prng_impl(
    key_shape=threefry_prng_impl.key_shape,
    seed=threefry_prng_impl.seed,
    split=threefry_prng_impl.split,
    fold_in=threefry_prng_impl.fold_in,
    random_bits=_hashed_bits,
    name="hashed",
    tag="hash",
)
