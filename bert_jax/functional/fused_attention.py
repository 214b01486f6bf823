"""Attention in one kernel: segments of packed rows, dropout inside, and no array of scores in memory.

The kernel computes what `functional.attention` computes by plain matrix products: softmax(q k' / sqrt(H)) among the
tokens of one sequence, dropout of the weights, times v. A program holds a block of queries and visits the keys block by
block with a running maximum and a running sum (online softmax). The backward pass recomputes the weights from the sums.
Blocks that share no sequence are skipped.

The random bits of a dropout mask are a hash of the element's place (`functional.random_bits`), so each block computes
its own bits, equal to those of the plain path. Nothing of size [B, N, T, S] exists.

The kernels are written in Pallas. The mathematics of a block is in `attention_blocks`; `attention_gpu` (Triton) and
`attention_tpu` (Mosaic) lay the blocks over a chip. A program takes the kernels of the platform that it is compiled
for. On CPUs the kernels are interpreted, for tests.

Axes: B batch, T query position, S key position, N heads, H head size, D = N H.

References: Dao et al., FlashAttention, 2022. Milakov, Gimelshein, Online Normalizer Calculation for Softmax, 2018.
"""

from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from bert_jax.functional import attention_gpu, attention_tpu
from bert_jax.functional.attention_blocks import Shape
from bert_jax.functional.layers import dropout_threshold
from bert_jax.functional.mesh_axes import HEADS, ROWS, first_row, is_partitioned
from bert_jax.functional.random_bits import HASHED, matrix_key

SAVED_NAMES = ("context", "sums")  # what a backward pass needs to run without the forward kernel
# The axis T of what the two passes read (after the words) and return.
TIME_AXES = {
    "forward": ((1, 1, 1, 1), (1, 2)),  # q, k, v, numbers; out, sums
    "backward": ((1, 1, 1, 1, 1, 2, 1), (1, 1, 1)),  # q, k, v, numbers, out, sums, gradient; dq, dk, dv
}


def fused_attention(
    q: Array,
    k: Array,
    v: Array,
    attention_mask: Array,
    *,
    num_heads: int,
    dropout_rate: float,
    key: Array | None,
    interpreted: ModuleType = attention_gpu,
) -> Array:
    """Returns the heads' outputs [B, T, D] for q, k, v [B, T, D], as the dense layers of an encoder layer give them.

    On a mesh each device computes its own rows and heads, with the dropout masks that one device would compute.

    Args:
        attention_mask: int [B, T], 0 = padding, otherwise the number of the sequence in its row. The output at padding
            is zero and has no gradient.
        key: for dropout, of the kind `hashed`; None = no dropout.
        interpreted: the driver that a program for CPUs interprets, `attention_gpu` or `attention_tpu`.

    Raises:
        ValueError: dropout with a key of another kind.
    """
    threshold = 0
    words = jnp.zeros((len(q), num_heads, 2), jnp.uint32)  # the key of each head's dropout mask
    if key is not None and dropout_rate:
        if jax.random.key_impl(key) != HASHED:
            raise ValueError(f"kernel pallas has dropout from hashed random bits only, got {jax.random.key_impl(key)}")
        threshold = dropout_threshold(dropout_rate)
        row = jnp.uint32(first_row(len(q))) + jax.lax.iota(jnp.uint32, len(q))
        matrix = row[:, None] * jnp.uint32(num_heads) + jax.lax.iota(jnp.uint32, num_heads)[None, :]  # [B, N]
        words = jnp.stack(matrix_key(jax.random.key_data(key), matrix), axis=-1)
    head_size = q.shape[-1] // num_heads

    def attend(words: Array, q: Array, k: Array, v: Array, mask: Array) -> Array:
        B, T, D = q.shape
        shape = Shape(B, T, T, D // head_size, head_size, threshold)
        return _attention(interpreted, shape, words, q, k, v, mask.astype(jnp.int32))

    if not is_partitioned():
        return attend(words, q, k, v, attention_mask)
    heads_axis = HEADS if num_heads % jax.sharding.get_abstract_mesh().shape[HEADS] == 0 else None
    heads = P(ROWS, None, heads_axis)
    on_mesh = jax.shard_map(
        attend, in_specs=(P(ROWS, heads_axis), heads, heads, heads, P(ROWS)), out_specs=heads, check_vma=False
    )
    return on_mesh(words, q, k, v, attention_mask)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(
    interpreted: ModuleType, shape: Shape, words: Array, q: Array, k: Array, v: Array, numbers: Array
) -> Array:
    """Attention of one device; `words` is uint32 [B, N, 2]."""
    return _run("forward", interpreted, shape, words, q, k, v, numbers)[0]


def _forward(interpreted: ModuleType, shape: Shape, words: Array, q: Array, k: Array, v: Array, numbers: Array):
    out, sums = _run("forward", interpreted, shape, words, q, k, v, numbers)
    out, sums = (checkpoint_name(x, name) for x, name in zip((out, sums), SAVED_NAMES, strict=True))
    return out, (words, q, k, v, numbers, out, sums)


def _backward(interpreted: ModuleType, shape: Shape, residuals: tuple[Array, ...], gradient: Array):
    words, *_, numbers, _, _ = residuals
    dq, dk, dv = _run("backward", interpreted, shape, *residuals, gradient)
    none = jax.dtypes.float0  # integers have no gradient
    return np.zeros(words.shape, none), dq, dk, dv, np.zeros(numbers.shape, none)


_attention.defvjp(_forward, _backward)


def _run(name: str, interpreted: ModuleType, shape: Shape, *arrays: Array) -> Any:
    """Runs the kernels of the `forward` or the `backward` pass, for the platform that the program is compiled for."""
    run = partial(_run_padded, name, shape)
    branches = {"cpu": partial(run, interpreted, True), "tpu": partial(run, attention_tpu, False)}
    if attention_gpu.is_available():
        branches["default"] = partial(run, attention_gpu, False)
    return jax.lax.platform_dependent(*arrays, **branches)


def _run_padded(
    name: str, shape: Shape, driver: ModuleType, interpret: bool, words: Array, *arrays: Array
) -> tuple[Array, ...]:
    """Runs the kernels of a driver on rows that are padded to a multiple of its unit."""
    padding = -shape.length % driver.UNIT
    padded = replace(shape, length=shape.length + padding)
    inputs_axes, outputs_axes = TIME_AXES[name]
    if padding:
        arrays = tuple(_pad(x, axis, padding) for x, axis in zip(arrays, inputs_axes, strict=True))
    results = getattr(driver, name)(padded, words, *arrays, interpret=interpret)
    return tuple(
        jax.lax.slice_in_dim(x, 0, shape.length, axis=axis) for x, axis in zip(results, outputs_axes, strict=True)
    )


def _pad(x: Array, axis: int, padding: int) -> Array:
    return jnp.pad(x, [(0, padding if each == axis else 0) for each in range(x.ndim)])
