"""The attention kernels of TPUs, compiled by Mosaic: a program computes a block of queries of several heads.

A TPU's registers are 128 lanes wide, so a program computes a group of heads that fill them, such as two of 64. Keys and
values of a whole row stay in its fast memory (VMEM) while the programs of that row run one after another. So one
backward kernel is enough: each program gives the gradient of its queries, and adds to those of all keys.

A ref is a block of an array in VMEM, or in SMEM, the memory of scalars. With G heads of a group, W = G H: refs of q,
k, v, outputs and gradients hold [1, Q, W] or [1, T, W]; those of sequence numbers [1, 1, Q] or [1, 1, T]; `sums_ref`
[1, G, Q]; `words_ref` [1, 1, 2 G] the keys of the heads' dropout masks; and `range_ref` [1, 1, 2] the first and the
last + 1 block of keys to visit.

Axes: B batch, T position, N heads, H head size, D = N H, Q query positions and K key positions of a block.
"""

from functools import partial
from typing import Literal

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

UNIT = 128  # positions; rows are padded to a multiple of it
LANES = 128
BLOCK = 256  # positions of a block of queries or of keys, if it divides the row
VMEM = 48 * 2**20  # bytes that a program may use; v5p has 64 MiB, v5e and v6e 128
BLOCKS_VMEM = 4 * 2**20  # of them for the blocks of queries and of scores


def forward(
    shape: Shape, words: Array, q: Array, k: Array, v: Array, numbers: Array, *, interpret: bool
) -> tuple[Array, Array]:
    """Returns the output [B, T, D], and log(sum of exp(scores)) of each query, float32 [B, N, T].

    The arguments are those of `attention_gpu.forward`.
    """
    specs = _Specs(shape)
    sums = jax.ShapeDtypeStruct((specs.groups, specs.group, shape.length), jnp.float32)
    call = pl.pallas_call(
        partial(forward_kernel, specs=specs),
        grid=(specs.groups, specs.blocks),
        in_specs=[*specs.scalars, specs.block, specs.row, specs.row, specs.block_numbers, specs.row_numbers],
        out_specs=[specs.block, specs.statistic],
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), sums],
        name="forward_kernel",
        **specs.options(interpret, "parallel"),
    )
    out, sums = call(*specs.prepare(words, numbers), q, k, v, numbers[:, None], numbers[:, None])
    return out, sums.reshape(shape.rows, shape.heads, shape.length)


def backward(
    shape: Shape, words: Array, q: Array, k: Array, v: Array, numbers: Array, out: Array, sums: Array, gradient: Array,
    *, interpret: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Returns the gradients of q, k and v, [B, T, D] each; `out` and `sums` are those of `forward`."""
    from jax.experimental.pallas import tpu

    specs = _Specs(shape)
    call = pl.pallas_call(
        partial(backward_kernel, specs=specs),
        grid=(specs.groups, specs.blocks),
        in_specs=[
            *specs.scalars, specs.block, specs.row, specs.row, specs.block_numbers, specs.row_numbers,
            specs.block, specs.statistic, specs.block,
        ],
        out_specs=[specs.block, specs.row, specs.row],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)],
        scratch_shapes=[tpu.VMEM((shape.length, specs.width), jnp.float32)] * 2,
        name="backward_kernel",
        **specs.options(interpret, "arbitrary"),
    )  # fmt: skip
    sums = sums.reshape(specs.groups, specs.group, shape.length)
    return call(*specs.prepare(words, numbers), q, k, v, numbers[:, None], numbers[:, None], out, sums, gradient)


def block_size(length: int) -> int:
    """Returns the positions of a block of a row of `length`, a multiple of `UNIT`."""
    return BLOCK if length % BLOCK == 0 else UNIT


def fits(length: int, heads: int, head_size: int, itemsize: int) -> bool:
    """Returns whether VMEM holds what the backward kernel keeps of a row; `heads` are those of a device."""
    width = -(-_heads_of_group(heads, head_size) * head_size // LANES) * LANES
    streamed = 4 * 2  # k, v and their gradients, each with room for those of the next group
    sums = 2 * 4  # of the gradients, in float32
    return length * width * (streamed * itemsize + sums) + BLOCKS_VMEM <= VMEM


def forward_kernel(
    words_ref, range_ref, q_ref, k_ref, v_ref, query_numbers_ref, numbers_ref, out_ref, sums_ref, *, specs
):
    """Computes the output of a block of queries, and log(sum of exp(scores)) of each."""
    shape, block, query = specs.shape, specs.size, pl.program_id(1) * specs.size
    query_numbers = query_numbers_ref[0, 0][:, None]
    for head in range(specs.group):
        lanes = slice(head * shape.head_size, (head + 1) * shape.head_size)
        words = words_ref[0, 0, 2 * head], words_ref[0, 0, 2 * head + 1]
        q = q_ref[0, :, lanes]  # [Q, H]

        def visit(j: Array, softmax: Softmax, q=q, lanes=lanes, words=words) -> Softmax:
            key = pl.multiple_of(j * block, block)
            keys = pl.ds(key, block)
            allowed = same_sequence(query_numbers, numbers_ref[0, 0, keys][None, :])
            keep = dropout_mask(shape, words, query, key, (block, block))
            return softmax_update(shape, softmax, q, k_ref[0, keys, lanes], v_ref[0, keys, lanes], allowed, keep)

        softmax = jax.lax.fori_loop(range_ref[0, 0, 0], range_ref[0, 0, 1], visit, softmax_start(shape, block))
        out, sums_ref[0, head] = softmax_end(shape, softmax)
        out_ref[0, :, lanes] = out.astype(out_ref.dtype)


def backward_kernel(
    words_ref, range_ref, q_ref, k_ref, v_ref, query_numbers_ref, numbers_ref, out_ref, sums_ref, gradient_ref,
    dq_ref, dk_ref, dv_ref, dk_sum_ref, dv_sum_ref, *, specs,
):  # fmt: skip
    """Computes the gradient of a block of queries, and adds to those of the keys and values that it attends to."""
    shape, block, query = specs.shape, specs.size, pl.program_id(1) * specs.size
    query_numbers = query_numbers_ref[0, 0][:, None]

    @pl.when(pl.program_id(1) == 0)
    def _():
        dk_sum_ref[...] = jnp.zeros_like(dk_sum_ref)
        dv_sum_ref[...] = jnp.zeros_like(dv_sum_ref)

    for head in range(specs.group):
        lanes = slice(head * shape.head_size, (head + 1) * shape.head_size)
        words = words_ref[0, 0, 2 * head], words_ref[0, 0, 2 * head + 1]
        q = q_ref[0, :, lanes]  # [Q, H]
        gradient = gradient_ref[0, :, lanes]
        sums = sums_ref[0, head][:, None]  # [Q, 1]
        delta = (out_ref[0, :, lanes].astype(jnp.float32) * gradient.astype(jnp.float32)).sum(axis=1)[:, None]

        def visit(j, dq, q=q, gradient=gradient, sums=sums, delta=delta, lanes=lanes, words=words):
            key = pl.multiple_of(j * block, block)
            keys = pl.ds(key, block)
            k = k_ref[0, keys, lanes]  # [K, H]
            allowed = same_sequence(query_numbers, numbers_ref[0, 0, keys][None, :])
            keep = dropout_mask(shape, words, query, key, (block, block))
            scores = dot(q, k, (1, 1))  # [Q, K]
            products = dot(gradient, v_ref[0, keys, lanes], (1, 1))
            weights, scores_gradient = block_gradients(shape, scores, products, sums, delta, allowed, keep)
            scores_gradient = scores_gradient.astype(q.dtype)
            dk_sum_ref[keys, lanes] += dot(scores_gradient, q, (0, 0))
            dv_sum_ref[keys, lanes] += dot(weights.astype(q.dtype), gradient, (0, 0))
            return dq + dot(scores_gradient, k, (1, 0))

        start = jnp.zeros((block, shape.head_size), jnp.float32)
        dq = jax.lax.fori_loop(range_ref[0, 0, 0], range_ref[0, 0, 1], visit, start)
        dq_ref[0, :, lanes] = (dq * shape.scale).astype(dq_ref.dtype)

    @pl.when(pl.program_id(1) == specs.blocks - 1)
    def _():
        dk_ref[0] = (dk_sum_ref[...] * shape.scale).astype(dk_ref.dtype)
        dv_ref[0] = (dv_sum_ref[...] * shape.dropout_scale).astype(dv_ref.dtype)


def _heads_of_group(heads: int, head_size: int) -> int:
    """Returns the smallest number of heads that divides `heads` and fills registers; else all heads."""
    return next((G for G in range(1, heads) if heads % G == 0 and G * head_size % LANES == 0), heads)


class _Specs:
    """The grid of programs, (groups of heads of all rows, blocks of queries), and what each reads and writes."""

    def __init__(self, shape: Shape) -> None:
        from jax.experimental.pallas import tpu

        self.shape = shape
        self.size = block_size(shape.length)
        self.blocks = shape.length // self.size
        self.group = _heads_of_group(shape.heads, shape.head_size)
        self.width = self.group * shape.head_size
        self.groups = shape.rows * shape.heads // self.group
        T, at = shape.length, self._coordinates
        self.scalars = [
            pl.BlockSpec((1, 1, 2 * self.group), lambda p, i: (p, 0, 0), memory_space=tpu.SMEM),
            pl.BlockSpec((1, 1, 2), lambda p, i: (at(p)[0] * self.blocks + i, 0, 0), memory_space=tpu.SMEM),
        ]
        # Of [B, T, D]: a block of queries of one group, and all positions of one group.
        self.block = pl.BlockSpec((1, self.size, self.width), lambda p, i: (at(p)[0], i, at(p)[1]))
        self.row = pl.BlockSpec((1, T, self.width), lambda p, i: (at(p)[0], 0, at(p)[1]))
        # Of int32 [B, 1, T], likewise, and of float32 [groups, G, T].
        self.block_numbers = pl.BlockSpec((1, 1, self.size), lambda p, i: (at(p)[0], 0, i))
        self.row_numbers = pl.BlockSpec((1, 1, T), lambda p, i: (at(p)[0], 0, 0))
        self.statistic = pl.BlockSpec((1, self.group, self.size), lambda p, i: (p, 0, i))

    def _coordinates(self, program: Array) -> tuple[Array, Array]:
        """Returns row and group within the row."""
        of_row = jnp.int32(self.shape.heads // self.group)
        row = jax.lax.div(program, of_row)
        return row, program - row * of_row

    def prepare(self, words: Array, numbers: Array) -> tuple[Array, Array]:
        """Returns the inputs in SMEM: the words of each group, and the range of blocks of each block of queries."""
        ranges = shared_blocks(numbers, self.size, self.size)
        return words.reshape(self.groups, 1, 2 * self.group), ranges.reshape(-1, 1, 2)

    def options(self, interpret: bool, semantics: Literal["parallel", "arbitrary"]) -> dict:
        """Returns the options of a call; the blocks of a row are independent (`parallel`) or not (`arbitrary`)."""
        if interpret:
            return {"interpret": True}
        from jax.experimental.pallas import tpu

        params = tpu.CompilerParams(dimension_semantics=("parallel", semantics), vmem_limit_bytes=VMEM)
        return {"compiler_params": params}
