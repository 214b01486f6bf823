"""The bodies of the attention kernels: what one program computes from blocks of its arrays.

`functional.fused_attention` runs them and explains the algorithm. A ref is an array in device memory that a kernel
reads and writes by slices. Refs of q, k, v, outputs and gradients hold one row and one head: [1, T, H], or only the
program's block, [1, Q, H] or [1, K, H]. Those of statistics hold [1, 1, T] or [1, 1, Q], those of sequence numbers
[1, T], and `range_ref` [1, 1, 2] the first and the last + 1 block to visit.

Axes: T position, H head size, Q query positions and K key positions of a block.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from bert_jax.functional.random_bits import hash_index

MASKED = -1e30  # a score; finite, so that the difference of two of them is a number


@dataclass(frozen=True)
class Tuning:
    """How a kernel is compiled: positions per block of queries and of keys, warps per program, pipeline stages."""

    queries: int
    keys: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Shape:
    """What a kernel is compiled for.

    Attributes:
        rows: B, of this device.
        length: T.
        heads: N, of this device.
        all_heads: N of the model; larger than `heads` if heads are split over devices.
        head_size: H.
        threshold: an attention weight is dropped if its 16 random bits are below it; 0 = no dropout.
    """

    rows: int
    length: int
    heads: int
    all_heads: int
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

    def coordinates(self, program: Array, blocks: int) -> tuple[Array, Array, Array]:
        """Returns row, head and block of a program; consecutive programs share a head, and so its keys."""
        head = jax.lax.div(program, jnp.int32(blocks))
        row = jax.lax.div(head, jnp.int32(self.heads))
        return row, head - row * self.heads, program - head * blocks


def forward_kernel(seed_ref, range_ref, q_ref, k_ref, v_ref, numbers_ref, out_ref, sums_ref, *, shape, tuning):
    """Computes the output of a block of queries, and log(sum of exp(scores)) of each."""
    row, head, block = shape.coordinates(pl.program_id(0), shape.length // tuning.queries)
    queries = _span(block, tuning.queries)
    q = q_ref[0]  # [Q, H]

    def visit(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        maximum, total, context = carry  # [Q], [Q], [Q, H]
        keys = _span(j, tuning.keys)
        allowed = _same_sequence(numbers_ref[0, queries][:, None], numbers_ref[0, keys][None, :])
        scores = jnp.where(allowed, _dot(q, k_ref[0, keys], (1, 1)) * shape.scale, MASKED)  # [Q, K]
        higher = jnp.maximum(maximum, scores.max(axis=1))
        weights = jnp.where(allowed, jnp.exp(scores - higher[:, None]), 0.0)
        shrink = jnp.exp(maximum - higher)
        total = total * shrink + weights.sum(axis=1)
        if shape.threshold:
            keep = _keep(shape, seed_ref, row, head, _positions(queries)[:, None], _positions(keys)[None, :])
            weights = jnp.where(keep, weights, 0.0)
        return higher, total, context * shrink[:, None] + _dot(weights.astype(v_ref.dtype), v_ref[0, keys], (1, 0))

    zeros = jnp.zeros(tuning.queries, jnp.float32)
    start = (zeros + MASKED, zeros, jnp.zeros((tuning.queries, shape.head_size), jnp.float32))
    maximum, total, context = jax.lax.fori_loop(range_ref[0, 0, 0], range_ref[0, 0, 1], visit, start)
    total = jnp.where(total == 0.0, 1.0, total)  # of padding
    out_ref[0] = (context * (shape.dropout_scale / total)[:, None]).astype(out_ref.dtype)
    sums_ref[0, 0] = maximum + jnp.log(total)


def backward_queries_kernel(
    seed_ref, range_ref, q_ref, k_ref, v_ref, numbers_ref, out_ref, sums_ref, gradient_ref, dq_ref, delta_ref,
    *, shape, tuning,
):  # fmt: skip
    """Computes the gradient of a block of queries, and sum(output * gradient) of each, which the keys need."""
    row, head, block = shape.coordinates(pl.program_id(0), shape.length // tuning.queries)
    queries = _span(block, tuning.queries)
    q = q_ref[0]  # [Q, H]
    gradient = gradient_ref[0]  # [Q, H]
    sums = sums_ref[0, 0]  # [Q]
    delta = (out_ref[0].astype(jnp.float32) * gradient.astype(jnp.float32)).sum(axis=1)  # [Q]
    delta_ref[0, 0] = delta

    def visit(j: Array, dq: Array) -> Array:
        keys = _span(j, tuning.keys)
        k = k_ref[0, keys]
        allowed = _same_sequence(numbers_ref[0, queries][:, None], numbers_ref[0, keys][None, :])
        weights = jnp.where(allowed, jnp.exp(_dot(q, k, (1, 1)) * shape.scale - sums[:, None]), 0.0)  # [Q, K]
        weights_gradient = _dot(gradient, v_ref[0, keys], (1, 1)) * shape.dropout_scale
        if shape.threshold:
            keep = _keep(shape, seed_ref, row, head, _positions(queries)[:, None], _positions(keys)[None, :])
            weights_gradient = jnp.where(keep, weights_gradient, 0.0)
        scores_gradient = weights * (weights_gradient - delta[:, None])
        return dq + _dot(scores_gradient.astype(k.dtype), k, (1, 0))

    start = jnp.zeros((tuning.queries, shape.head_size), jnp.float32)
    dq = jax.lax.fori_loop(range_ref[0, 0, 0], range_ref[0, 0, 1], visit, start)
    dq_ref[0] = (dq * shape.scale).astype(dq_ref.dtype)


def backward_keys_kernel(
    seed_ref, range_ref, q_ref, k_ref, v_ref, numbers_ref, sums_ref, delta_ref, gradient_ref, dk_ref, dv_ref,
    *, shape, tuning,
):  # fmt: skip
    """Computes the gradients of a block of keys and values; its arrays are transposed, [K, Q]."""
    row, head, block = shape.coordinates(pl.program_id(0), shape.length // tuning.keys)
    keys = _span(block, tuning.keys)
    k = k_ref[0]  # [K, H]
    v = v_ref[0]  # [K, H]

    def visit(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        dk, dv = carry
        queries = _span(i, tuning.queries)
        q = q_ref[0, queries]
        gradient = gradient_ref[0, queries]
        allowed = _same_sequence(numbers_ref[0, queries][None, :], numbers_ref[0, keys][:, None])
        scores = _dot(k, q, (1, 1)) * shape.scale
        weights = jnp.where(allowed, jnp.exp(scores - sums_ref[0, 0, queries][None, :]), 0.0)  # [K, Q]
        weights_gradient = _dot(v, gradient, (1, 1)) * shape.dropout_scale
        dropped = weights
        if shape.threshold:
            keep = _keep(shape, seed_ref, row, head, _positions(queries)[None, :], _positions(keys)[:, None])
            dropped = jnp.where(keep, weights, 0.0)
            weights_gradient = jnp.where(keep, weights_gradient, 0.0)
        scores_gradient = weights * (weights_gradient - delta_ref[0, 0, queries][None, :])
        dk = dk + _dot(scores_gradient.astype(q.dtype), q, (1, 0))
        dv = dv + _dot(dropped.astype(q.dtype), gradient, (1, 0))
        return dk, dv

    zeros = jnp.zeros((tuning.keys, shape.head_size), jnp.float32)
    dk, dv = jax.lax.fori_loop(range_ref[0, 0, 0], range_ref[0, 0, 1], visit, (zeros, zeros))
    dk_ref[0] = (dk * shape.scale).astype(dk_ref.dtype)
    dv_ref[0] = (dv * shape.dropout_scale).astype(dv_ref.dtype)


def _span(block: Array, size: int) -> pl.Slice:
    return pl.Slice(block * size, size)


def _positions(span: pl.Slice) -> Array:
    return (span.start + jax.lax.iota(jnp.int32, int(span.size))).astype(jnp.uint32)


def _same_sequence(queries: Array, keys: Array) -> Array:
    return (queries == keys) & (keys != 0)


def _dot(a: Array, b: Array, contracted: tuple[int, int]) -> Array:
    axes = (((contracted[0],), (contracted[1],)), ((), ()))
    return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def _keep(shape: Shape, seed_ref, row: Array, head: Array, queries: Array, keys: Array) -> Array:
    """Returns which weights of a block are kept; `queries` and `keys` are positions, [Q, 1] and [1, K] or transposed.

    The plain path draws bits for an array [B, N, T, T] of all devices; this is the index of an element in it.
    """
    row = row.astype(jnp.uint32) + seed_ref[2]
    head = head.astype(jnp.uint32) + seed_ref[3]
    first = (row * jnp.uint32(shape.all_heads) + head) * jnp.uint32(shape.length**2 % 2**32)
    index = first + queries * jnp.uint32(shape.length) + keys
    return hash_index(index, seed_ref[0], seed_ref[1]) >= jnp.uint32(shape.threshold << 16)
