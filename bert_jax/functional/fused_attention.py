"""Attention in one kernel: segments of packed rows, dropout inside, and no array of scores in memory.

The kernel computes what `functional.attention` computes by plain matrix products: softmax(q k' / sqrt(H)) among the
tokens of one sequence, dropout of the weights, times v. A program holds a block of queries and visits the keys block by
block with a running maximum and a running sum (online softmax). The backward pass recomputes the weights from the sums:
one kernel visits the keys of each block of queries and gives the gradient of q; another visits the queries of each
block of keys and gives those of k and v. Blocks that share no sequence are skipped.

The random bits of a dropout mask are a hash of the element's index (`functional.random_bits`), so each block computes
its own bits, equal to those of the plain path, in all three kernels. Nothing of size [B, N, T, S] exists.

The kernels are written in Pallas and compiled by Triton on GPUs; on CPUs they are interpreted, for tests.

Axes: B batch, T query position, S key position, N heads, H head size, D = N H, Q and K positions of a block.

References: Dao et al., FlashAttention, 2022; Dao, FlashAttention-2, 2023 (both loops, the order of the backward pass).
Milakov, Gimelshein, Online Normalizer Calculation for Softmax, 2018.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P

from bert_jax.functional.attention_blocks import (
    Shape,
    Tuning,
    backward_keys_kernel,
    backward_queries_kernel,
    forward_kernel,
)
from bert_jax.functional.layers import dropout_threshold
from bert_jax.functional.mesh_axes import HEADS, ROWS, first_row, is_partitioned
from bert_jax.functional.random_bits import HASHED

SAVED_NAMES = ("context", "sums")  # what a backward pass needs to run without the forward kernel
NO_SEQUENCE = np.iinfo(np.int32).max

# The fastest of those tried on an H100, with rows of 512 tokens and heads of 64.
FORWARD = Tuning(queries=64, keys=32, warps=4, stages=3)
BACKWARD_QUERIES = Tuning(queries=64, keys=32, warps=4, stages=3)
BACKWARD_KEYS = Tuning(queries=32, keys=64, warps=4, stages=3)


def fused_attention(
    q: Array, k: Array, v: Array, attention_mask: Array, *, num_heads: int, dropout_rate: float, key: Array | None
) -> Array:
    """Returns the heads' outputs [B, T, D] for q, k, v [B, T, D], as the dense layers of an encoder layer give them.

    On a mesh each device computes its own rows and heads, with the dropout masks that one device would compute.

    Args:
        attention_mask: int [B, T], 0 = padding, otherwise the number of the sequence in its row. The output at padding
            is zero and has no gradient.
        key: for dropout, of the kind `hashed`; None = no dropout.

    Raises:
        ValueError: dropout with a key of another kind.
    """
    threshold = 0
    seed = jnp.zeros(4, jnp.uint32)  # the key's two words, the first row and the first head
    if key is not None and dropout_rate:
        if jax.random.key_impl(key) != HASHED:
            raise ValueError(f"kernel pallas has dropout from hashed random bits only, got {jax.random.key_impl(key)}")
        threshold = dropout_threshold(dropout_rate)
        seed = seed.at[:2].set(jax.random.key_data(key))
    head_size = q.shape[-1] // num_heads

    def attend(seed: Array, q: Array, k: Array, v: Array, mask: Array) -> Array:
        B, T, D = q.shape
        shape = Shape(B, T, D // head_size, num_heads, head_size, threshold)
        return _attention(shape, seed, q, k, v, mask.astype(jnp.int32))

    partitioned = is_partitioned()
    splits_heads = partitioned and num_heads % jax.sharding.get_abstract_mesh().shape[HEADS] == 0
    heads_axis = HEADS if splits_heads else None

    def attend_to_shard(seed: Array, q: Array, *others: Array) -> Array:
        head = jax.lax.axis_index(heads_axis) * (q.shape[2] // head_size) if heads_axis else 0
        return attend(seed.at[2].set(jnp.uint32(first_row(len(q)))).at[3].set(jnp.uint32(head)), q, *others)

    if not partitioned:
        return attend_to_shard(seed, q, k, v, attention_mask)
    heads = P(ROWS, None, heads_axis)
    on_mesh = jax.shard_map(
        attend_to_shard, in_specs=(P(), heads, heads, heads, P(ROWS)), out_specs=heads, check_vma=False
    )
    return on_mesh(seed, q, k, v, attention_mask)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(shape: Shape, seed: Array, q: Array, k: Array, v: Array, numbers: Array) -> Array:
    """Attention of one device; `seed` is the key's two words, the first row and the first head, uint32."""
    return _run_forward(shape, seed, q, k, v, numbers)[0]


def _forward(shape: Shape, seed: Array, q: Array, k: Array, v: Array, numbers: Array):
    out, sums = _run_forward(shape, seed, q, k, v, numbers)
    out, sums = (checkpoint_name(x, name) for x, name in zip((out, sums), SAVED_NAMES, strict=True))
    return out, (seed, q, k, v, numbers, out, sums)


def _backward(shape: Shape, residuals: tuple[Array, ...], gradient: Array):
    seed, q, k, v, numbers, out, sums = residuals
    dq, delta = _run_backward_queries(shape, seed, q, k, v, numbers, out, sums, gradient)
    dk, dv = _run_backward_keys(shape, seed, q, k, v, numbers, sums, delta, gradient)
    none = jax.dtypes.float0  # integers have no gradient
    return np.zeros(seed.shape, none), dq, dk, dv, np.zeros(numbers.shape, none)


_attention.defvjp(_forward, _backward)


# The calls: which block of each array a program reads and writes.


def _run_forward(shape: Shape, seed: Array, q: Array, k: Array, v: Array, numbers: Array) -> tuple[Array, Array]:
    tuning = _fitting(FORWARD, shape.length)
    specs = _Specs(shape, tuning.queries)
    ranges = _shared_blocks(numbers, tuning.queries, tuning.keys)
    inputs = [(specs.seed, seed), (specs.range, ranges), (specs.block, q), (specs.row, k), (specs.row, v)]
    outputs = [(specs.block, q.dtype), (specs.statistic, jnp.float32)]
    return _call(forward_kernel, specs, tuning, [*inputs, (specs.numbers, numbers)], outputs)


def _run_backward_queries(
    shape: Shape, seed: Array, q: Array, k: Array, v: Array, numbers: Array, out: Array, sums: Array, gradient: Array
) -> tuple[Array, Array]:
    """Returns the gradient of q [B, T, D], and sum(output * gradient) of each head, float32 [B, N, T]."""
    tuning = _fitting(BACKWARD_QUERIES, shape.length)
    specs = _Specs(shape, tuning.queries)
    ranges = _shared_blocks(numbers, tuning.queries, tuning.keys)
    inputs = [(specs.seed, seed), (specs.range, ranges), (specs.block, q), (specs.row, k), (specs.row, v)]
    inputs += [(specs.numbers, numbers), (specs.block, out), (specs.statistic, sums), (specs.block, gradient)]
    outputs = [(specs.block, q.dtype), (specs.statistic, jnp.float32)]
    return _call(backward_queries_kernel, specs, tuning, inputs, outputs)


def _run_backward_keys(
    shape: Shape, seed: Array, q: Array, k: Array, v: Array, numbers: Array, sums: Array, delta: Array, gradient: Array
) -> tuple[Array, Array]:
    """Returns the gradients of k and v [B, T, D]."""
    tuning = _fitting(BACKWARD_KEYS, shape.length)
    specs = _Specs(shape, tuning.keys)
    ranges = _shared_blocks(numbers, tuning.keys, tuning.queries)
    inputs = [(specs.seed, seed), (specs.range, ranges), (specs.row, q), (specs.block, k), (specs.block, v)]
    inputs += [(specs.numbers, numbers), (specs.statistics, sums), (specs.statistics, delta), (specs.row, gradient)]
    return _call(backward_keys_kernel, specs, tuning, inputs, [(specs.block, k.dtype), (specs.block, v.dtype)])


def _fitting(tuning: Tuning, length: int) -> Tuning:
    """Returns the tuning with blocks that divide a row."""
    return replace(tuning, queries=math.gcd(tuning.queries, length), keys=math.gcd(tuning.keys, length))


class _Specs:
    """The blocks of a program that computes `size` positions of one head."""

    def __init__(self, shape: Shape, size: int) -> None:
        blocks = shape.length // size
        at = partial(shape.coordinates, blocks=blocks)
        self.shape = shape
        self.programs = shape.rows * shape.heads * blocks
        self.seed = pl.BlockSpec((4,), lambda p: (0,))  # of uint32 [4]
        self.range = pl.BlockSpec((1, 1, 2), lambda p: (at(p)[0], at(p)[2], 0))  # of int32 [B, blocks, 2]
        self.numbers = pl.BlockSpec((1, shape.length), lambda p: (at(p)[0], 0))  # of int32 [B, T]
        # Of [B, T, D]: a block of one head, and all positions of one head.
        self.block = pl.BlockSpec((1, size, shape.head_size), lambda p: (at(p)[0], at(p)[2], at(p)[1]))
        self.row = pl.BlockSpec((1, shape.length, shape.head_size), lambda p: (at(p)[0], 0, at(p)[1]))
        # Of float32 [B, N, T], likewise.
        self.statistic = pl.BlockSpec((1, 1, size), at)
        self.statistics = pl.BlockSpec((1, 1, shape.length), lambda p: (*at(p)[:2], 0))

    def whole(self, spec: pl.BlockSpec, dtype: Any) -> jax.ShapeDtypeStruct:
        """Returns the array that an output's blocks form."""
        B, T, N = self.shape.rows, self.shape.length, self.shape.heads
        return jax.ShapeDtypeStruct((B, N, T) if spec is self.statistic else (B, T, N * self.shape.head_size), dtype)


def _call(
    kernel: Callable,
    specs: _Specs,
    tuning: Tuning,
    inputs: list[tuple[pl.BlockSpec, Array]],
    outputs: list[tuple[pl.BlockSpec, Any]],
) -> Any:
    """Runs a kernel: compiled by Triton, or interpreted in a program for CPUs."""
    from jax.experimental.pallas import triton  # deprecated since JAX 0.11: only where it is needed

    call = partial(
        pl.pallas_call,
        partial(kernel, shape=specs.shape, tuning=tuning),
        grid=(specs.programs,),
        in_specs=[spec for spec, _ in inputs],
        out_specs=[spec for spec, _ in outputs],
        out_shape=[specs.whole(*output) for output in outputs],
        name=kernel.__name__,
    )
    compiled = call(compiler_params=triton.CompilerParams(num_warps=tuning.warps, num_stages=tuning.stages))
    return jax.lax.platform_dependent(*(x for _, x in inputs), cpu=call(interpret=True), default=compiled)


def _shared_blocks(numbers: Array, size: int, other_size: int) -> Array:
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
