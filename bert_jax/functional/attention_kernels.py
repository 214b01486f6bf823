"""Fused attention kernels, which never write the scores [B, N, T, S] to memory.

Each kernel computes softmax(q k' / sqrt(H)) v among the tokens of one sequence. None returns the attention weights. At
padding their output differs from the plain path, and nothing reads it; it must still be finite, because the gradient
of the next layer multiplies it by zero, and zero times NaN is NaN.

`cudnn`: NVIDIA's kernel for bfloat16 and float16; one sequence per row, followed by padding; no dropout. It is kept for
inference, where it is the faster one.
`pallas`: our own, `functional.fused_attention`, for GPUs and TPUs; any number of sequences per row, and dropout with
the masks of the plain path.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from bert_jax.functional.fused_attention import fused_attention


def cudnn(
    q: Array, k: Array, v: Array, attention_mask: Array, *, num_heads: int, dropout_rate: float, key: Array | None
) -> Array:
    """Runs cuDNN's kernel on q, k, v [B, T, D] and attention_mask, int [B, T] with one sequence per row.

    Raises:
        ValueError: dropout, which it does not have in a form that a resumed run repeats.
    """
    if key is not None and dropout_rate:
        raise ValueError(f"kernel cudnn has no dropout of attention weights, got a rate of {dropout_rate}")
    B, T, D = q.shape
    heads = (x.reshape(B, T, num_heads, D // num_heads) for x in (q, k, v))
    is_token = attention_mask != 0
    # cuDNN divides by zero in a row without tokens, so such a row counts as one of length 1. It may leave padding
    # unwritten, so the memory there can hold anything, NaN included: it is set to 0.
    lengths = jnp.maximum(is_token.sum(axis=1, dtype=jnp.int32), 1)  # [B]
    output = jax.nn.dot_product_attention(
        *heads, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation="cudnn"
    )
    return jnp.where(is_token[..., None], output.reshape(B, T, D), 0)


KERNELS: dict[str, Callable[..., Array]] = {"cudnn": cudnn, "pallas": fused_attention}
