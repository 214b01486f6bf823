"""The attention kernels of GPUs, compiled by Triton: a program computes one block of one head.

The backward pass has two kernels: one visits the keys of each block of queries and gives the gradient of q, the other
visits the queries of each block of keys and gives those of k and v. So no two programs add to the same memory.

A ref is an array in device memory that a kernel reads and writes by slices. Refs of q, k, v, outputs and gradients hold
one row and one head: [1, T, H], or only the program's block, [1, Q, H] or [1, K, H]. Those of statistics hold [1, 1, T]
or [1, 1, Q], those of sequence numbers [1, T], `words_ref` [1, 1, 2] the key of the head's dropout mask, and
`range_ref` [1, 1, 2] the first and the last + 1 block to visit.

Axes: B batch, T position, N heads, H head size, D = N H, Q query positions and K key positions of a block.

References: Dao, FlashAttention-2, 2023 (both loops, the order of the backward pass).
"""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from bert_jax.functional.attention_blocks import (
    Shape,
    Softmax,
    block_gradients,
    dot,
    dropout_mask,
    same_sequence,
    shared_blocks,
    softmax_end,
    softmax_start,
    softmax_update,
)


@dataclass(frozen=True)
class Tuning:
    """How a kernel is compiled: positions per block of queries and of keys, warps per program, pipeline stages."""

    queries: int
    keys: int
    warps: int
    stages: int


UNIT = 64  # positions; rows are padded to a multiple of it, which all blocks divide
# The fastest of those tried on an H100, with rows of 512 tokens and heads of 64.
FORWARD = Tuning(queries=64, keys=32, warps=4, stages=3)
BACKWARD_QUERIES = Tuning(queries=64, keys=32, warps=4, stages=3)
BACKWARD_KEYS = Tuning(queries=32, keys=64, warps=4, stages=3)


def is_available() -> bool:
    """Returns whether this JAX has Pallas's Triton backend, which is deprecated since 0.11."""
    return importlib.util.find_spec("jax.experimental.pallas.triton") is not None


def forward(
    shape: Shape, words: Array, q: Array, k: Array, v: Array, numbers: Array, *, interpret: bool
) -> tuple[Array, Array]:
    """Returns the output [B, T, D], and log(sum of exp(scores)) of each query, float32 [B, N, T].

    Args:
        words: uint32 [B, N, 2], the key of each head's dropout mask.
        numbers: int32 [B, T], the number of each position's sequence; 0 = padding.
        interpret: run the kernel on a CPU, for tests.
    """
    tuning = _fitting(FORWARD, shape.length)
    specs = _Specs(shape, tuning.queries)
    ranges = shared_blocks(numbers, tuning.queries, tuning.keys)
    inputs = [(specs.words, words), (specs.range, ranges), (specs.block, q), (specs.row, k), (specs.row, v)]
    outputs = [(specs.block, q.dtype), (specs.statistic, jnp.float32)]
    return _call(forward_kernel, specs, tuning, [*inputs, (specs.numbers, numbers)], outputs, interpret)


def backward(
    shape: Shape, words: Array, q: Array, k: Array, v: Array, numbers: Array, out: Array, sums: Array, gradient: Array,
    *, interpret: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Returns the gradients of q, k and v, [B, T, D] each; `out` and `sums` are those of `forward`."""
    tuning = _fitting(BACKWARD_QUERIES, shape.length)
    specs = _Specs(shape, tuning.queries)
    ranges = shared_blocks(numbers, tuning.queries, tuning.keys)
    inputs = [(specs.words, words), (specs.range, ranges), (specs.block, q), (specs.row, k), (specs.row, v)]
    inputs += [(specs.numbers, numbers), (specs.block, out), (specs.statistic, sums), (specs.block, gradient)]
    outputs = [(specs.block, q.dtype), (specs.statistic, jnp.float32)]
    dq, delta = _call(backward_queries_kernel, specs, tuning, inputs, outputs, interpret)

    tuning = _fitting(BACKWARD_KEYS, shape.length)
    specs = _Specs(shape, tuning.keys)
    ranges = shared_blocks(numbers, tuning.keys, tuning.queries)
    inputs = [(specs.words, words), (specs.range, ranges), (specs.row, q), (specs.block, k), (specs.block, v)]
    inputs += [(specs.numbers, numbers), (specs.statistics, sums), (specs.statistics, delta), (specs.row, gradient)]
    outputs = [(specs.block, k.dtype), (specs.block, v.dtype)]
    dk, dv = _call(backward_keys_kernel, specs, tuning, inputs, outputs, interpret)
    return dq, dk, dv


def forward_kernel(words_ref, range_ref, q_ref, k_ref, v_ref, numbers_ref, out_ref, sums_ref, *, specs, tuning):
    """Computes the output of a block of queries, and log(sum of exp(scores)) of each."""
    shape, (_, _, block) = specs.shape, specs.coordinates(pl.program_id(0))
    queries = _span(block, tuning.queries)
    words = words_ref[0, 0, 0], words_ref[0, 0, 1]
    q = q_ref[0]  # [Q, H]

    def visit(j: Array, softmax: Softmax) -> Softmax:
        keys = _span(j, tuning.keys)
        allowed = same_sequence(numbers_ref[0, queries][:, None], numbers_ref[0, keys][None, :])
        keep = dropout_mask(shape, words, queries.start, keys.start, (tuning.queries, tuning.keys))
        return softmax_update(shape, softmax, q, k_ref[0, keys], v_ref[0, keys], allowed, keep)

    softmax = jax.lax.fori_loop(range_ref[0, 0, 0], range_ref[0, 0, 1], visit, softmax_start(shape, tuning.queries))
    out, sums_ref[0, 0] = softmax_end(shape, softmax)
    out_ref[0] = out.astype(out_ref.dtype)


def backward_queries_kernel(
    words_ref, range_ref, q_ref, k_ref, v_ref, numbers_ref, out_ref, sums_ref, gradient_ref, dq_ref, delta_ref,
    *, specs, tuning,
):  # fmt: skip
    """Computes the gradient of a block of queries, and sum(output * gradient) of each, which the keys need."""
    shape, (_, _, block) = specs.shape, specs.coordinates(pl.program_id(0))
    queries = _span(block, tuning.queries)
    words = words_ref[0, 0, 0], words_ref[0, 0, 1]
    q = q_ref[0]  # [Q, H]
    gradient = gradient_ref[0]  # [Q, H]
    sums = sums_ref[0, 0]  # [Q]
    delta = (out_ref[0].astype(jnp.float32) * gradient.astype(jnp.float32)).sum(axis=1)  # [Q]
    delta_ref[0, 0] = delta

    def visit(j: Array, dq: Array) -> Array:
        keys = _span(j, tuning.keys)
        k = k_ref[0, keys]
        allowed = same_sequence(numbers_ref[0, queries][:, None], numbers_ref[0, keys][None, :])
        keep = dropout_mask(shape, words, queries.start, keys.start, (tuning.queries, tuning.keys))
        scores = dot(q, k, (1, 1))  # [Q, K]
        products = dot(gradient, v_ref[0, keys], (1, 1))
        _, scores_gradient = block_gradients(shape, scores, products, sums[:, None], delta[:, None], allowed, keep)
        return dq + dot(scores_gradient.astype(k.dtype), k, (1, 0))

    start = jnp.zeros((tuning.queries, shape.head_size), jnp.float32)
    dq = jax.lax.fori_loop(range_ref[0, 0, 0], range_ref[0, 0, 1], visit, start)
    dq_ref[0] = (dq * shape.scale).astype(dq_ref.dtype)


def backward_keys_kernel(
    words_ref, range_ref, q_ref, k_ref, v_ref, numbers_ref, sums_ref, delta_ref, gradient_ref, dk_ref, dv_ref,
    *, specs, tuning,
):  # fmt: skip
    """Computes the gradients of a block of keys and values; its arrays are transposed, [K, Q]."""
    shape, (_, _, block) = specs.shape, specs.coordinates(pl.program_id(0))
    keys = _span(block, tuning.keys)
    words = words_ref[0, 0, 0], words_ref[0, 0, 1]
    k = k_ref[0]  # [K, H]
    v = v_ref[0]  # [K, H]

    def visit(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        dk, dv = carry
        queries = _span(i, tuning.queries)
        q = q_ref[0, queries]
        gradient = gradient_ref[0, queries]
        sums = sums_ref[0, 0, queries][None, :]
        delta = delta_ref[0, 0, queries][None, :]
        allowed = same_sequence(numbers_ref[0, queries][None, :], numbers_ref[0, keys][:, None])
        block = (tuning.queries, tuning.keys)
        keep = dropout_mask(shape, words, queries.start, keys.start, block, transposed=True)
        scores = dot(k, q, (1, 1))  # [K, Q]
        products = dot(v, gradient, (1, 1))
        weights, scores_gradient = block_gradients(shape, scores, products, sums, delta, allowed, keep)
        dk = dk + dot(scores_gradient.astype(q.dtype), q, (1, 0))
        dv = dv + dot(weights.astype(q.dtype), gradient, (1, 0))
        return dk, dv

    zeros = jnp.zeros((tuning.keys, shape.head_size), jnp.float32)
    dk, dv = jax.lax.fori_loop(range_ref[0, 0, 0], range_ref[0, 0, 1], visit, (zeros, zeros))
    dk_ref[0] = (dk * shape.scale).astype(dk_ref.dtype)
    dv_ref[0] = (dv * shape.dropout_scale).astype(dv_ref.dtype)


def _span(block: Array, size: int) -> pl.Slice:
    return pl.Slice(block * size, size)


def _fitting(tuning: Tuning, length: int) -> Tuning:
    """Returns the tuning with blocks that divide a row."""
    return replace(tuning, queries=math.gcd(tuning.queries, length), keys=math.gcd(tuning.keys, length))


class _Specs:
    """The programs of a kernel, each for `size` positions of one head, and the blocks that they read and write."""

    def __init__(self, shape: Shape, size: int) -> None:
        self.shape = shape
        self.blocks = shape.length // size
        self.programs = shape.rows * shape.heads * self.blocks
        at = self.coordinates
        self.words = pl.BlockSpec((1, 1, 2), lambda p: (*at(p)[:2], 0))  # of uint32 [B, N, 2]
        self.range = pl.BlockSpec((1, 1, 2), lambda p: (at(p)[0], at(p)[2], 0))  # of int32 [B, blocks, 2]
        self.numbers = pl.BlockSpec((1, shape.length), lambda p: (at(p)[0], 0))  # of int32 [B, T]
        # Of [B, T, D]: a block of one head, and all positions of one head.
        self.block = pl.BlockSpec((1, size, shape.head_size), lambda p: (at(p)[0], at(p)[2], at(p)[1]))
        self.row = pl.BlockSpec((1, shape.length, shape.head_size), lambda p: (at(p)[0], 0, at(p)[1]))
        # Of float32 [B, N, T], likewise.
        self.statistic = pl.BlockSpec((1, 1, size), at)
        self.statistics = pl.BlockSpec((1, 1, shape.length), lambda p: (*at(p)[:2], 0))

    def coordinates(self, program: Array) -> tuple[Array, Array, Array]:
        """Returns row, head and block of a program; consecutive programs share a head, and so its keys."""
        head = jax.lax.div(program, jnp.int32(self.blocks))
        row = jax.lax.div(head, jnp.int32(self.shape.heads))
        return row, head - row * self.shape.heads, program - head * self.blocks

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
    interpret: bool,
) -> Any:
    params = None
    if not interpret:
        from jax.experimental.pallas import triton  # deprecated: only where it is needed

        params = triton.CompilerParams(num_warps=tuning.warps, num_stages=tuning.stages)
    call = pl.pallas_call(
        partial(kernel, specs=specs, tuning=tuning),
        grid=(specs.programs,),
        in_specs=[spec for spec, _ in inputs],
        out_specs=[spec for spec, _ in outputs],
        out_shape=[specs.whole(*output) for output in outputs],
        name=kernel.__name__,
        compiler_params=params,
        interpret=interpret,
    )
    return call(*(x for _, x in inputs))
