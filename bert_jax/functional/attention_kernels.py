"""Attention in one kernel, which never writes the scores [B, N, T, S] to memory.

A kernel stands for softmax(q k' / sqrt(H)) v between the tokens of a sequence. None has dropout, and none gives the
weights back. What padding computes differs from the plain path, and nobody reads it; but it is finite, because in the
next layer's gradient it meets a zero, and zero times NaN is NaN.

`cudnn`: NVIDIA's, for bfloat16 and float16; one sequence a row, padding behind it.
`pallas`: a Triton kernel that comes with JAX; any number of sequences a row; for a program of one device.

References: Dao et al., FlashAttention, 2022; Dao, FlashAttention-2, 2023.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

BLOCK = 64  # tokens that a program of the Pallas kernel takes at once


def cudnn(q: Array, k: Array, v: Array, attention_mask: Array) -> Array:
    """Runs cuDNN's kernel: q, k, v [B, T, N, H], attention_mask int [B, T] of one sequence a row.

    It may leave padding unwritten and divide by zero in a row without tokens: padding gets 0, such a row one token.
    """
    real = attention_mask != 0
    lengths = jnp.maximum(real.sum(axis=1, dtype=jnp.int32), 1)
    out = jax.nn.dot_product_attention(
        q, k, v, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation="cudnn"
    )
    return jnp.where(real[..., None, None], out, 0)


def pallas(q: Array, k: Array, v: Array, attention_mask: Array) -> Array:
    """Runs the Pallas kernel: q, k, v [B, T, N, H], attention_mask int [B, T] with any numbers of sequences.

    On the CPU it is interpreted: for tests, and slow.
    """
    from jax.experimental.pallas.ops.gpu.attention import BlockSizes, mha

    T, H = q.shape[1], q.shape[3]
    block = min(BLOCK, T)
    sizes = BlockSizes(*[block] * 2, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block)
    interpret = jax.default_backend() == "cpu"
    return mha(q, k, v, attention_mask, 1.0 / math.sqrt(H), block_sizes=sizes, interpret=interpret)


KERNELS: dict[str, Callable[[Array, Array, Array, Array], Array]] = {"cudnn": cudnn, "pallas": pallas}
