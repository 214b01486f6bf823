"""Random bits for dropout that are cheap enough to be made again wherever they are needed.

JAX's own generator takes twenty rounds an element, writes the bits to memory, and keeps the masks for the backward
pass. Here an element's bits are a hash of its place in the array and of the key: a dozen operations that XLA fuses into
whatever reads them. Keys are split and folded by threefry as ever, so that what is new is the last step alone, from a
key to an array. The bits are those of a key on any number of devices, and under `jax.vmap` those of each key alone.

Good for dropout and not for secrets. After 2^32 elements an array repeats itself.

References: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011 (bits as a function of key and counter).
Wellons, Prospecting for Hash Functions, 2018 (the hash: two multiplications, every bit of the input moves every bit).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import define_prng_impl, threefry_prng_impl


def hash_uint32(x: Array) -> Array:
    """Hashes uint32, one to one."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD)
    x = (x ^ (x >> 15)) * jnp.uint32(0xD35A2D97)
    return x ^ (x >> 15)


def hashed_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    """Returns random bits, unsigned integers of `bit_width` in an array of `shape`, for the two words of a key."""
    strides = [math.prod(shape[axis + 1 :]) % 2**32 for axis in range(len(shape))]
    place = jnp.zeros(shape, jnp.uint32)
    for axis, stride in enumerate(strides):
        place = place + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    bits = hash_uint32(hash_uint32(place + key[0]) + key[1])
    if bit_width == 64:
        return bits.astype(jnp.uint64) << 32 | hash_uint32(bits + key[0]).astype(jnp.uint64)
    return (bits >> (32 - bit_width)).astype(f"uint{bit_width}")


HASHED: Any = define_prng_impl(
    key_shape=threefry_prng_impl.key_shape,
    seed=threefry_prng_impl.seed,
    split=threefry_prng_impl.split,
    fold_in=threefry_prng_impl.fold_in,
    random_bits=hashed_bits,
    name="hashed",
    tag="hash",
)
