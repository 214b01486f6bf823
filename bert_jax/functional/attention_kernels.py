"""Fused attention kernels, which never write the scores [B, N, T, S] to memory.

Each kernel computes softmax(q k' / sqrt(H)) v among the tokens of one sequence. None has dropout, and none returns the
attention weights. At padding their output differs from the plain path, and nothing reads it; it must still be finite,
because the gradient of the next layer multiplies it by zero, and zero times NaN is NaN.

`cudnn`: NVIDIA's kernel for bfloat16 and float16; one sequence per row, followed by padding.
`pallas`: a Triton kernel that comes with JAX; any number of sequences per row; for programs of one device.

References: Dao et al., FlashAttention, 2022; Dao, FlashAttention-2, 2023.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

BLOCK = 64  # tokens per block of the Pallas kernel


def cudnn(q: Array, k: Array, v: Array, attention_mask: Array) -> Array:
    """Runs cuDNN's kernel on q, k, v [B, T, N, H] and attention_mask, int [B, T] with one sequence per row."""
    is_token = attention_mask != 0
    # cuDNN divides by zero in a row without tokens, so such a row counts as one of length 1. It may leave padding
    # unwritten, so the memory there can hold anything, NaN included: it is set to 0.
    lengths = jnp.maximum(is_token.sum(axis=1, dtype=jnp.int32), 1)  # [B]
    output = jax.nn.dot_product_attention(
        q, k, v, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation="cudnn"
    )
    return jnp.where(is_token[..., None, None], output, 0)


def pallas(q: Array, k: Array, v: Array, attention_mask: Array) -> Array:
    """Runs the Pallas kernel on q, k, v [B, T, N, H] and attention_mask, int [B, T] with any number of sequences.

    On CPUs it is interpreted, which is slow and meant for tests.
    """
    from jax.experimental.pallas.ops.gpu.attention import BlockSizes, mha

    T, H = q.shape[1], q.shape[3]
    block = min(BLOCK, T)
    sizes = BlockSizes(block, block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block)
    interpret = jax.default_backend() == "cpu"
    # The kernel's `segment_ids` are our sequence numbers: equal numbers attend to each other, padding to padding.
    return mha(q, k, v, attention_mask, 1.0 / math.sqrt(H), block_sizes=sizes, interpret=interpret)


KERNELS: dict[str, Callable[[Array, Array, Array, Array], Array]] = {"cudnn": cudnn, "pallas": pallas}
