"""The mathematics of the attention kernels: what a block of queries and a block of keys give.

`functional.fused_attention` explains the algorithm. `attention_gpu` and `attention_tpu` are its two drivers: which
program computes which blocks, and where they are stored. Everything here is independent of that.

Axes: B batch, T position, N heads, H head size, Q query positions and K key positions of a block.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bert_jax.functional.random_bits import PAIRED, hash_index

MASKED = -1e30  # a score; finite, so that the difference of two of them is a number
NO_SEQUENCE = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Shape:
    """What a kernel is compiled for.

    Attributes:
        rows: B, of this device.
        length: T, with the padding that fills the last block.
        columns: T without it: the length of a row of the dropout mask.
        heads: N, of this device.
        head_size: H.
        threshold: an attention weight is dropped if its 16 random bits are below it; 0 = no dropout.
    """

    rows: int
    length: int
    columns: int
    heads: int
    head_size: int
    threshold: int

    @property
    def scale(self) -> float:
        """The factor of the scores."""
        return 1.0 / math.sqrt(self.head_size)

    @property
    def dropout_scale(self) -> float:
        """The factor of the weights that are kept."""
        return 1.0 / (1.0 - self.threshold / 2**16)


Softmax = tuple[Array, Array, Array]  # of the keys so far: the largest score [Q], the sum of exp [Q], context [Q, H]


def softmax_start(shape: Shape, queries: int) -> Softmax:
    """Returns the running softmax before the first keys."""
    zeros = jnp.zeros(queries, jnp.float32)
    return zeros + MASKED, zeros, jnp.zeros((queries, shape.head_size), jnp.float32)


def softmax_update(
    shape: Shape, softmax: Softmax, q: Array, k: Array, v: Array, allowed: Array, keep: Array | None
) -> Softmax:
    """Adds a block of keys and values, [K, H], to the running softmax of q [Q, H]; `allowed` and `keep` are [Q, K]."""
    maximum, total, context = softmax
    scores = jnp.where(allowed, dot(q, k, (1, 1)) * shape.scale, MASKED)  # [Q, K]
    higher = jnp.maximum(maximum, scores.max(axis=1))
    weights = jnp.where(allowed, jnp.exp(scores - higher[:, None]), 0.0)
    shrink = jnp.exp(maximum - higher)
    total = total * shrink + weights.sum(axis=1)
    if keep is not None:
        weights = jnp.where(keep, weights, 0.0)
    return higher, total, context * shrink[:, None] + dot(weights.astype(v.dtype), v, (1, 0))


def softmax_end(shape: Shape, softmax: Softmax) -> tuple[Array, Array]:
    """Returns the output, float32 [Q, H], and log(sum of exp(scores)), float32 [Q]."""
    maximum, total, context = softmax
    total = jnp.where(total == 0.0, 1.0, total)  # of padding
    return context * (shape.dropout_scale / total)[:, None], maximum + jnp.log(total)


def block_gradients(
    shape: Shape, scores: Array, products: Array, sums: Array, delta: Array, allowed: Array, keep: Array | None
) -> tuple[Array, Array]:
    """Returns the weights after dropout, not scaled up, and the gradient of the scores; both [Q, K], or transposed.

    Args:
        scores: q k'.
        products: g v', where g is the gradient of the output.
        sums: log(sum of exp(scores)) of each query, [Q, 1] or transposed.
        delta: sum(output * g) of each query, likewise.
    """
    weights = jnp.where(allowed, jnp.exp(scores * shape.scale - sums), 0.0)
    gradient = products * shape.dropout_scale
    if keep is None:
        return weights, weights * (gradient - delta)
    gradient = jnp.where(keep, gradient, 0.0)
    return jnp.where(keep, weights, 0.0), weights * (gradient - delta)


def same_sequence(queries: Array, keys: Array) -> Array:
    """Returns which queries may attend to which keys, from their sequence numbers: [Q, 1] and [1, K] or transposed."""
    return (queries == keys) & (keys != 0)


def dot(a: Array, b: Array, contracted: tuple[int, int]) -> Array:
    """Returns the product of two matrices over an axis of each, float32."""
    axes = (((contracted[0],), (contracted[1],)), ((), ()))
    return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def dropout_mask(
    shape: Shape,
    words: tuple[Array, Array],
    query: Array | int,
    key: Array | int,
    block: tuple[int, int],
    *,
    transposed=False,
) -> Array | None:
    """Returns which weights of a block [Q, K] (transposed: [K, Q]) are kept; None without dropout.

    They are the bits that `random_bits` gives for the block's place in an array [B, N, T, T] of all devices. Rows t and
    t + 8 of it share a hash: the hashes of Q / 2 rows [Q / 16, 8, K] become [Q / 16, 2, 8, K], the bits of Q rows.

    Args:
        words: the key of the block's matrix, `random_bits.matrix_key`.
        query: the first query position of the block, a multiple of 16.
        key: the first key position.
    """
    if not shape.threshold:
        return None
    Q, K = block
    axis = 1 if transposed else 0  # of queries
    hashed = (K, Q // 2) if transposed else (Q // 2, K)
    pair = jnp.uint32(query) // 2 + jax.lax.broadcasted_iota(jnp.uint32, hashed, axis)
    column = jnp.uint32(key) + jax.lax.broadcasted_iota(jnp.uint32, hashed, 1 - axis)
    bits = hash_index(pair * jnp.uint32(shape.columns) + column, *words)
    groups = (*hashed[:axis], Q // (2 * PAIRED), 1, PAIRED, *hashed[axis + 1 :])
    halves = (*groups[: axis + 1], 2, *groups[axis + 2 :])
    is_lower = jax.lax.broadcasted_iota(jnp.uint32, halves, axis + 1)
    bits = jnp.broadcast_to(bits.reshape(groups), halves) << (16 * is_lower)
    return bits.reshape((K, Q) if transposed else (Q, K)) >= jnp.uint32(shape.threshold << 16)


def shared_blocks(numbers: Array, size: int, other_size: int) -> Array:
    """Returns for each block of `size` positions the first and the last + 1 block of `other_size` to visit.

    Two blocks may share a sequence if the ranges of their sequence numbers overlap. Returns int32 [B, T / size, 2];
    zeros for a block of padding. The row [1, 1, 2, 2, 2, 3, 0, 0] in blocks of two gives [[0, 1], [1, 3], [1, 3],
    [0, 0]].
    """

    def extremes(size: int) -> tuple[Array, Array]:
        blocks = numbers.reshape(len(numbers), -1, size)
        return jnp.where(blocks == 0, NO_SEQUENCE, blocks).min(axis=-1), blocks.max(axis=-1)

    low, high = extremes(size)
    other_low, other_high = extremes(other_size)
    shares = (low[:, :, None] <= other_high[:, None, :]) & (other_low[:, None, :] <= high[:, :, None])
    first = jnp.argmax(shares, axis=-1)
    end = shares.shape[-1] - jnp.argmax(shares[..., ::-1], axis=-1)
    return jnp.where(shares.any(axis=-1)[..., None], jnp.stack([first, end], axis=-1), 0).astype(jnp.int32)
